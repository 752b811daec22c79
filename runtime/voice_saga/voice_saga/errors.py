"""The errors that the saga engines raise."""

from __future__ import annotations

from collections.abc import Mapping


class SagaError(Exception):
    """The base of what the saga engines raise."""


class UnknownSagaError(SagaError, LookupError):
    """No saga has this id, or no definition this name."""


class SagaConflictError(SagaError):
    """The request does not fit the saga's state, or its id belongs to a saga with another input."""


class LeaseLostError(SagaError):
    """The saga is no longer in this worker's hands: nothing was written."""


class JournalUnavailableError(SagaError, ConnectionError):
    """The journal could not be reached; whether the last write happened is unknown until it is read again."""


class BarrierClosedError(SagaError):
    """The step was compensated before its action came: the action must not happen any more."""


class DefinitionMismatchError(SagaError):
    """The running saga began under a definition that this process does not have."""


class MessagesRefusedError(SagaError):
    """The transport took every message but these, which sending again at once would not change."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        """`reasons`: why, by the message's place among those that were sent."""
        super().__init__(f"{len(reasons)} refused: {next(iter(reasons.values()))}")
        self.reasons = reasons


class TooLargeError(SagaError, ValueError):
    """An input or a result beyond what a saga keeps. Keep it elsewhere, and let the step return where."""


class NotJsonError(SagaError, TypeError):
    """An input, a result or a message that JSON cannot carry."""
