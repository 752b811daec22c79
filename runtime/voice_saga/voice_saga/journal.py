"""The journal stores sagas, so that a saga survives its process.

A saga has one row with its holder and the end of the lease, and one row for each entry. `due` is the time from which
any worker may claim the saga. While a worker holds the saga, it is due at the end of the lease. While the saga waits,
it is due at the next timeout. A saga that has ended or is parked is never due. Each claim raises `epoch`, and
`append` and `renew` need the epoch of the last claim. So a worker that was paused beyond its lease cannot write.
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
    """A saga that one worker holds."""

    id: str
    name: str
    version: int
    fingerprint: str
    input: Any
    trace: str
    """W3C `traceparent` of the request that started the saga."""
    epoch: int
    entries: list[Entry]
    age: float = 0.0
    """Seconds since the start of the saga."""
    claims: int = 1
    """Number of claims since the last `append`. A released claim does not count. `Journal.start` with an owner
    counts as a claim. If the number is above 1, a worker lost the saga before it wrote an entry, probably because the
    saga's step killed the worker."""
    signals: int = 0
    """Number of outcomes that were delivered before the claim, or before the last call of `Journal.outcomes`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a step, from `Engine.deliver`: a result or an error."""

    step: str
    result: Any = None
    error: str | None = None
    trace: str = ""
    """W3C `traceparent` of the delivery."""


@dataclass(slots=True)
class Batch:
    """Messages that one sender holds."""

    messages: Sequence[Message]
    refused: Collection[int] = ()
    """Positions in `messages` of the refused messages, which stay in the outbox. A refused message is due again after
    1 s; each further refusal doubles the wait, up to 64 s."""


class Journal(Protocol):
    """A store of sagas. Every write is one transaction. Raises `JournalUnavailableError` if it is unreachable."""

    async def open(self, *, worker: bool) -> None:
        """Connect. The SQLite journal also creates missing tables; the PostgreSQL journal needs `migrate` first.

        `worker` is true for an engine that runs sagas.
        """
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def start(self, claim: Claim, owner: str | None, lease: float) -> bool:
        """Write a new saga.

        `owner` holds it for `lease` seconds; `None`: no worker holds it. False if the id exists.
        """
        ...

    async def claim(self, owner: str, limit: int, lease: float) -> list[Claim]:
        """Take up to `limit` due sagas. The saga that has been due longest is first."""
        ...

    async def seize(self, saga_id: str, owner: str, lease: float) -> Claim | None:
        """Take one saga, even from its holder. `None` if there is no such saga."""
        ...

    async def append(  # noqa: PLR0913  # the parts of one write
        self,
        claim: Claim,
        entries: Sequence[Entry],
        state: State,
        *,
        reason: str = "",
        messages: Sequence[Message] = (),
        release: float | None = None,
    ) -> None:
        """Write entries and their messages. With `release`, also release the saga: it is due in `release` seconds.

        `release=inf` means never due. If an outcome arrived that `claim.signals` does not count, the released saga is
        due immediately. If the claim is no longer valid, raises `LeaseLostError` and writes nothing.
        """
        ...

    async def renew(self, claims: Collection[Claim], lease: float) -> set[str]:
        """Let the leases of `claims` end `lease` seconds from now. Returns the ids of the sagas whose claim was valid.

        Leases are renewed by claim and not by owner. If the connection broke before the journal answered `claim`, the
        owner does not know that it holds the saga. That claim must expire, so that another worker takes over the saga.
        """
        ...

    async def release(self, owner: str) -> None:
        """Release all sagas that `owner` holds, so that the next worker can take them immediately.

        The released claims do not count in `Claim.claims`.
        """
        ...

    async def deliver(self, saga_id: str, outcome: Outcome) -> bool:
        """Store the first outcome of a step, and make a waiting saga due. False if there is no such saga."""
        ...

    async def outcomes(self, claim: Claim) -> dict[str, Outcome]:
        """The delivered outcomes, by step. Updates `claim.signals`."""
        ...

    async def show(self, saga_id: str) -> SagaRecord | None:
        """One saga with its entries."""
        ...

    async def summary(self, saga_id: str) -> SagaSummary | None:
        """One saga without its entries."""
        ...

    async def list(self, state: State | None, name: str | None, limit: int) -> list[SagaSummary]:
        """At most `limit` sagas with this state and this name, the newest first. `None` allows every state or name."""
        ...

    async def unfinished(self) -> dict[tuple[str, State], int]:
        """Number of unfinished sagas by name and state."""
        ...

    def outbox(self, limit: int) -> AbstractAsyncContextManager[Batch]:
        """The oldest due messages that no other sender holds.

        At the end of the block the journal deletes the messages of the batch, except the refused ones. After an error
        in the block it deletes none.
        """
        ...
