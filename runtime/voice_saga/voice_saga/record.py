"""The public view of a saga, and the interface of the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from voice_saga.progress import ENDED, Entry, State


@dataclass(frozen=True, slots=True)
class SagaSummary:
    """A saga without its entries. Times are seconds since 1970, by the engine's clock."""

    id: str
    name: str
    version: int
    state: State
    reason: str
    """The reason of the last compensation, parking or abandonment. Empty if there was none."""
    started_at: float
    updated_at: float

    @property
    def ended(self) -> bool:
        """True if the saga has ended."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class SagaRecord(SagaSummary):
    """One saga with all its entries."""

    input: Any
    entries: tuple[Entry, ...]
    """Every transition, in order."""


class Engine(Protocol):
    """Runs sagas. The same definitions run on every engine: SQLite, PostgreSQL and Temporal."""

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """Begin a saga under its newest definition. Returns the saga's id. If the id exists, no saga begins.

        Raises `UnknownSagaError` if no definition has the name, `SagaConflictError` if the id belongs to a saga with
        another name or input. Also raises `InvalidSagaIdError`, `NotJsonError` and `TooLargeError`.
        """
        ...

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """Wait until the saga has ended or is parked, and return it. Raises `TimeoutError` after `seconds`.

        A cancellation ends only the wait and not the saga.
        """
        ...

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """Deliver the outcome of a step that waits or will wait: a `result` or an `error`.

        The first outcome of a step counts; later outcomes change nothing. False if there is no such saga. Raises
        `NotJsonError` and `TooLargeError`.
        """
        ...

    async def show(self, saga_id: str) -> SagaRecord:
        """One saga. Raises `UnknownSagaError` if there is no such saga."""
        ...

    async def list(
        self, *, state: State | None = None, name: str | None = None, limit: int = 100
    ) -> Sequence[SagaSummary]:
        """At most `limit` sagas with this state and this name, the newest first. `None` allows every state or name."""
        ...

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """Continue a parked saga. Raises `SagaConflictError` if the saga is not parked."""
        ...

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """Undo a saga that runs, waits or is parked. Raises `SagaConflictError` for a saga in another state."""
        ...

    async def abandon(self, saga_id: str, reason: str) -> None:
        """End a saga without doing or undoing anything more. Raises `SagaConflictError` if the saga has ended."""
        ...
