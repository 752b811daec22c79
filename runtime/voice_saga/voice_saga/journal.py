"""The journal, which lets a saga survive its process.

A saga has one row, which says who holds it and until when, and one row for each entry. `due` is the time from which
anybody may claim it: the end of the lease while it is held, the time to look again while it waits, never once it has
ended or is parked. Each claim raises `epoch`, and a write carries the epoch of its claim: a worker that was paused past
its lease writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from voice_saga.context import Message
from voice_saga.progress import Entry, State
from voice_saga.record import SagaRecord, SagaSummary


@dataclass(slots=True)
class Claim:
    """A saga in one worker's hands."""

    id: str
    name: str
    version: int
    fingerprint: str
    input: Any
    trace: str
    """W3C `traceparent` of what started it."""
    epoch: int
    entries: list[Entry]
    age: float = 0.0
    """Seconds since it was started."""
    claims: int = 1
    """Claims since its last entry: more than a few, and its step kills whoever runs it."""
    signals: int = 0
    """Outcomes that had been delivered to it when they were last read."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a step in an event: its result or its error."""

    step: str
    result: Any = None
    error: str | None = None
    trace: str = ""
    """W3C `traceparent` of what delivered it."""


@dataclass(slots=True)
class Batch:
    """Messages in one sender's hands."""

    messages: Sequence[Message]
    refused: Collection[int] = ()
    """Places in `messages` of those that stay: each is due again after a second, twice that the next time, up to 64."""


class Journal(Protocol):
    """A store of sagas. Every write is one transaction. Raises `JournalUnavailableError` where it cannot be reached."""

    async def open(self, *, worker: bool) -> None:
        """Connect, and make what is missing; `worker` where sagas will be run, not only looked at."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def start(self, claim: Claim, owner: str | None, lease: float) -> bool:
        """Write a new saga, held by `owner` for `lease` seconds or by nobody; false if its id exists."""
        ...

    async def claim(self, owner: str, limit: int, lease: float) -> list[Claim]:
        """Take up to `limit` sagas that are due, the longest due first."""
        ...

    async def seize(self, saga_id: str, owner: str, lease: float) -> Claim | None:
        """Take one saga from whoever holds it; `None` if there is no such saga."""
        ...

    async def append(  # noqa: PLR0913  # one write, whole
        self,
        claim: Claim,
        entries: Sequence[Entry],
        state: State,
        *,
        reason: str = "",
        messages: Sequence[Message] = (),
        release: float | None = None,
    ) -> None:
        """Write entries and the messages that go with them; with `release`, let go until so many seconds from now.

        An outcome that was delivered since `claim.signals` makes a released saga due at once. `inf` is never.
        Raises `LeaseLostError`, having written nothing.
        """
        ...

    async def renew(self, claims: Collection[Claim], lease: float) -> set[str]:
        """Hold these for another `lease` seconds; the ids of those whose claim had not passed.

        By claim, not by owner: a claim whose worker lost sight of it, as when the connection broke before the answer,
        has to pass for the saga to be taken up again.
        """
        ...

    async def release(self, owner: str) -> None:
        """Let go of all that `owner` holds, for the next worker to take at once; these claims do not count."""
        ...

    async def deliver(self, saga_id: str, outcome: Outcome) -> bool:
        """Keep the first outcome of a step, and make a waiting saga due. False if there is no such saga."""
        ...

    async def outcomes(self, claim: Claim) -> dict[str, Outcome]:
        """The delivered outcomes, by step. Updates `claim.signals`."""
        ...

    async def show(self, saga_id: str) -> SagaRecord | None:
        """One saga whole."""
        ...

    async def summary(self, saga_id: str) -> SagaSummary | None:
        """One saga without its entries."""
        ...

    async def list(self, state: State | None, name: str | None, limit: int) -> list[SagaSummary]:
        """Those of a state or name, the newest first."""
        ...

    async def unfinished(self) -> dict[tuple[str, State], int]:
        """How many sagas there are by name and state, of those that have not ended."""
        ...

    def outbox(self, limit: int) -> AbstractAsyncContextManager[Batch]:
        """The oldest due messages that nobody else is sending; leaving without an error forgets what is not refused."""
        ...
