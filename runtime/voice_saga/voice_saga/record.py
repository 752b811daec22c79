"""A saga as an engine shows it."""

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
    """Why it is compensated, parked or abandoned; empty otherwise."""
    started_at: float
    updated_at: float

    @property
    def ended(self) -> bool:
        """True if the saga has ended."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class SagaRecord(SagaSummary):
    """One saga whole."""

    input: Any
    entries: tuple[Entry, ...]
    """Every transition, in order."""


class Engine(Protocol):
    """Runs sagas. The same definitions run on each: SQLite, PostgreSQL, Temporal."""

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """Begin a saga under its newest definition; its id. With an id that exists already, nothing but that.

        Raises `UnknownSagaError` for a name without definition, `SagaConflictError` where the id belongs to a saga
        of another name or input, `NotJsonError`, `TooLargeError`.
        """
        ...

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """The saga once it has ended or is parked. Raises `TimeoutError` after `seconds`.

        Cancelling it leaves the saga alone.
        """
        ...

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """The outcome of a step that waits, or soon will: a result, or the `error` that it failed with.

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
        """Those of a state or name, the newest first."""
        ...

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """Let a parked saga go on where it was. Raises `SagaConflictError` where it is not parked."""
        ...

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """Undo a saga that runs, waits or is parked. Raises `SagaConflictError` where it is too late."""
        ...

    async def abandon(self, saga_id: str, reason: str) -> None:
        """End a saga as it is: nothing more is done or undone. Raises `SagaConflictError` where it has ended."""
        ...
