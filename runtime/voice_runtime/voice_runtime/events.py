"""Events: one record for each, and the listeners that receive them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from threading import Lock, Thread
from typing import Literal, Protocol

EventKind = Literal["transition", "rejected", "retry", "exhausted", "timeout", "fallback", "reloaded", "refused"]
logger = logging.getLogger("voice_runtime")
LONGEST_QUEUE = 10_000
"""Events that wait for listeners which are slower than they come: some 10 MB."""


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
        self.dropped = 0
        """Events that came while `LONGEST_QUEUE` others waited."""
        self._queue: deque[tuple[Context, Event]] = deque()
        self._delivering = Lock()

    def publish(self, event: Event) -> None:
        """Deliver `event` and those before it, or leave it to the thread that is delivering already.

        A thread of its own delivers the events that come meanwhile, so nobody is held by those of others.
        """
        for listener in self._prompt:
            self._tell(listener, event)
        if not self._in_order:
            return
        if len(self._queue) >= LONGEST_QUEUE:
            self.dropped += 1
            return
        self._queue.append((copy_context(), event))
        if self._delivering.acquire(blocking=False):
            try:
                self._deliver(len(self._queue))
            finally:
                self._delivering.release()
            if self._queue:
                self._hand_over()

    def _hand_over(self) -> None:
        """To a thread that ends with the queue. Where it cannot start, the next to publish delivers."""
        with suppress(RuntimeError):
            Thread(target=self._deliver_the_rest, name="voice-runtime-events", daemon=True).start()

    def _deliver_the_rest(self) -> None:
        while self._queue and self._delivering.acquire(blocking=False):
            try:
                self._deliver(LONGEST_QUEUE)
            finally:
                self._delivering.release()

    def _deliver(self, most: int) -> None:
        for _ in range(most):
            if not self._queue:
                return
            context, event = self._queue.popleft()
            for listener in self._in_order:
                context.run(self._tell, listener, event)

    def _tell(self, listener: Listener, event: Event) -> None:
        try:
            listener.on_event(event)
        except Exception:
            self.listener_errors += 1
            logger.exception("a listener failed on %s of %s", event.kind, event.target)
