"""Events: one record for each, and the listeners that receive them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from threading import Lock
from typing import Literal, Protocol

EventKind = Literal["transition", "rejected", "retry", "exhausted", "timeout", "fallback", "reloaded", "refused"]
logger = logging.getLogger("voice_runtime")


@dataclass(frozen=True, slots=True)
class Event:
    """Something out of the ordinary: a successful call makes no event."""

    kind: EventKind
    policy: str
    """The policy that it came from, by its name in the bundle."""
    target: str
    """The outbound call, the inbound operation, or the file."""
    attempt: int = 0
    """The attempt it belongs to, from 1; 0 where there is none."""
    delay: float | None = None
    """Seconds to wait: the backoff of a retry, the `retry_after` of a rejection, the open time of a breaker."""
    before: str = ""
    """The state or level that was left."""
    after: str = ""
    """The state or level that was entered, or the reason."""
    error: BaseException | None = None


class Listener(Protocol):
    """Told of every event, in order, one at a time. What it raises is logged and counted, and changes nothing."""

    def on_event(self, event: Event) -> None:
        """Called outside every lock, in the context where the event happened: must not block."""
        ...


class PromptListener(ABC):
    """A listener that the thread tells where the event happened, before it goes on: many at a time, in no common order.

    For what belongs to the request, such as its span, which may have ended by the time another thread delivers.
    """

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """As of any listener."""


class Events:
    """Hands events to listeners from any thread: to prompt ones at once, to others in the order of publishing."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self.listeners = tuple(listeners)
        self.listener_errors = 0
        self._prompt = [listener for listener in self.listeners if isinstance(listener, PromptListener)]
        self._in_order = [listener for listener in self.listeners if not isinstance(listener, PromptListener)]
        self._queue: deque[tuple[Context, Event]] = deque()
        self._delivering = Lock()

    def publish(self, event: Event) -> None:
        """Deliver `event`, or leave it to the thread that is delivering already."""
        for listener in self._prompt:
            self._tell(listener, event)
        if not self._in_order:
            return
        self._queue.append((copy_context(), event))
        while self._queue and self._delivering.acquire(blocking=False):
            try:
                self._deliver()
            finally:
                self._delivering.release()

    def _deliver(self) -> None:
        while self._queue:
            context, event = self._queue.popleft()
            for listener in self._in_order:
                context.run(self._tell, listener, event)

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            listener.on_event(event)
        except Exception:
            self.listener_errors += 1
            logger.exception("a listener failed on %s of %s", event.kind, event.target)
