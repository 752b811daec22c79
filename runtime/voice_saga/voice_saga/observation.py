"""The telemetry of every engine: events for listeners, counts for metrics, spans for traces."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, Protocol

from voice_runtime import Event, Events

from voice_saga.context import Message, StepContext
from voice_saga.progress import Entry, State

__all__ = ["Observation", "Tracing"]


class Tracing(Protocol):
    """The source of spans: `voice_saga.otel.Spans` or `NoTracing`."""

    def current(self) -> str:
        """The W3C `traceparent` of the current work. Empty without tracing."""
        ...

    def step(self, context: StepContext) -> AbstractContextManager[None]:
        """The span of one execution, in the saga's trace.

        If an event caused the execution, the span has a link to the event's span.
        """
        ...

    def message(self, message: Message, consumer: str) -> AbstractContextManager[None]:
        """The span of handling a message, in the trace of the message's sender."""
        ...


class NoTracing:
    """No spans."""

    def current(self) -> str:
        """Return the empty string."""
        return ""

    def step(self, context: StepContext) -> AbstractContextManager[None]:  # noqa: ARG002  # the protocol's signature
        """Does nothing."""
        return nullcontext()

    def message(self, message: Message, consumer: str) -> AbstractContextManager[None]:  # noqa: ARG002  # as above
        """Does nothing."""
        return nullcontext()


class Observation:
    """The counts of one engine as plain numbers, read at scrape time."""

    def __init__(self, events: Events | None = None, tracing: Tracing | None = None) -> None:
        self.events = events or Events()
        self.tracing = tracing or NoTracing()
        self.transitions: Counter[tuple[str, str]] = Counter()
        """Entries by saga and kind: `started`, `completed`, `compensating`, `parked`, …"""
        self.executions: Counter[tuple[str, str, str, str]] = Counter()
        """Ended executions by saga, step, branch and kind: `successful`, `failed` or `cancelled`."""
        self.seconds: Counter[tuple[str, str, str]] = Counter()
        """Duration of executions in seconds, summed. In an engine with a journal an execution includes retries and
        backoffs. In Temporal each attempt is an execution."""
        self.unfinished: dict[tuple[str, State], int] = {}
        """Unfinished sagas in the journal by name and state, at the last count."""
        self.leases_lost = 0
        """Number of times that this worker's lease of a saga ended while the worker ran the saga."""

    def written(self, saga: str, saga_id: str, entries: Sequence[Entry], before: State | Literal[""]) -> None:
        """Count and publish entries after they were written. `before` is the previous state of the saga."""
        for entry in entries:
            self.transitions[saga, entry.kind] += 1
            after = f"{entry.step} {entry.kind}" if entry.step else entry.kind
            reason = f": {entry.data}" if entry.kind in {"failed", "compensating", "parked", "abandoned"} else ""
            self.events.publish(Event("transition", "saga", f"{saga}/{saga_id}", before=before, after=after + reason))

    @contextmanager
    def execution(self, context: StepContext) -> Iterator[None]:
        """Measure and trace one execution of an action or compensation."""
        begun, kind = time.monotonic(), "cancelled"
        try:
            with self.tracing.step(context):
                yield
            kind = "successful"
        except Exception:
            kind = "failed"
            raise
        finally:
            self.executions[context.saga, context.step, context.branch, kind] += 1
            self.seconds[context.saga, context.step, context.branch] += time.monotonic() - begun  # type: ignore[assignment]  # a Counter can add floats
