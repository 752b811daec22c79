"""The public view of a saga, and the interface of the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from voice_saga.progress import ENDED, Entry, State


@dataclass(frozen=True, slots=True)
class SagaSummary:
    """One row of a list. Times are seconds since 1970, by the engine's clock."""

    id: str
    name: str
    version: int
    state: State
    reason: str
    """The reason of a compensation, parking or abandonment. Empty otherwise."""
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
    """Runs sagas. The same definitions run on each: SQLite, PostgreSQL, Temporal."""

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """Begin a saga under its newest definition. Returns its id. If the id exists, nothing else happens.

        Raises `UnknownSagaError` for a name without definition, `SagaConflictError` if the id belongs to a saga of
        another name or input, `NotJsonError`, `TooLargeError`.
        """
        ...

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """The saga once it has ended or is parked. Raises `TimeoutError` after `seconds`.

        Cancelling it leaves the saga alone.
        """
        ...

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """Deliver the outcome of a step that waits or will wait: a result, or an `error`.

        The first outcome of a step counts; repeated and late ones change nothing. False if there is no such saga.
        Raises `NotJsonError`, `TooLargeError`.
        """
        ...

    async def show(self, saga_id: str) -> SagaRecord:
        """One saga. Raises `UnknownSagaError`."""
        ...

    async def list(
        self, *, state: State | None = None, name: str | None = None, limit: int = 100
    ) -> Sequence[SagaSummary]:
        """The sagas of a state or name, the newest first."""
        ...

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """Let a parked saga continue. Raises `SagaConflictError` if it is not parked."""
        ...

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """Undo a saga that runs, waits or is parked. Raises `SagaConflictError` in other states."""
        ...

    async def abandon(self, saga_id: str, reason: str) -> None:
        """End a saga as it is: nothing more is done or undone. Raises `SagaConflictError` if it has ended."""
        ...
