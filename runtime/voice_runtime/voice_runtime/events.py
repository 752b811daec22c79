"""Events and their listeners."""

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

from voice_runtime.log_rate import LogRate, since_previous

EventKind = Literal["transition", "rejected", "retry", "exhausted", "timeout", "fallback", "reloaded", "refused"]
logger = logging.getLogger("voice_runtime")
LONGEST_QUEUE = 10_000
"""Number of events that may wait for slow listeners. 10,000 events take about 10 MB."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a policy, such as a rejection or a retry. A successful call produces no event."""

    kind: EventKind
    policy: str
    """The policy that caused the event, such as `circuit_breaker`; or `bundle`, `cooldown` or `saga`."""
    target: str
    """The subject: an outbound call, inbound operation, service, bundle file, model deployment or saga."""
    attempt: int = 0
    """The number of the attempt, from 1. 0 if the event does not belong to an attempt."""
    delay: float | None = None
    """A wait in seconds: backoff of a retry, `retry_after` of a rejection, open time of a breaker, or a cooldown."""
    before: str = ""
    """The previous state, degradation level or digest of the bundle."""
    after: str = ""
    """The new state, degradation level or digest of the bundle."""
    reason: str = ""
    """The condition that caused the event, such as `failure_ratio` of a circuit breaker."""
    error: BaseException | None = None


class Listener(Protocol):
    """Receives events in order, one at a time. The runtime logs and counts an exception of the listener."""

    def on_event(self, event: Event) -> None:
        """Handle an event. This method must not block.

        It runs with the context variables of the code that published the event, and outside the locks of policies.
        """
        ...


class PromptListener(ABC):
    """A listener that runs in the thread that publishes the event. The thread waits until the listener returns.

    Several threads may call the listener at the same time, so events have no common order. Use this class for an effect
    on the request itself, such as an event on the request's span. Other listeners may get the event in another thread,
    after the span has ended.
    """

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Handle an event, as `Listener.on_event` does."""


class Events:
    """Passes events to listeners: to each `PromptListener` immediately, to others in the order of publishing."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self.listeners = tuple(listeners)
        self.listener_errors = 0
        self._prompt = [listener for listener in self.listeners if isinstance(listener, PromptListener)]
        self._log_rates = {id(listener): LogRate() for listener in self.listeners}
        self._in_order = [listener for listener in self.listeners if not isinstance(listener, PromptListener)]
        self.dropped = 0
        """Events that were dropped because `LONGEST_QUEUE` others waited."""
        self._queue: deque[tuple[Context, Event]] = deque()
        self._delivering = Lock()

    def publish(self, event: Event) -> None:
        """Deliver `event` and the events before it. If another thread is already delivering, only queue it.

        If events arrive during this delivery, a separate thread delivers them. So no caller delivers events of other
        callers for long.
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
        """Start a thread that empties the queue. If the thread cannot start, the next `publish` delivers the events."""
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
            if (omitted := self._log_rates[id(listener)].admit()) is not None:
                logger.exception(
                    "an event listener raised an error on the event %r of %s%s",
                    event.kind,
                    event.target,
                    since_previous(omitted),
                )
