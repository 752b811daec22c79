"""The errors that the saga engines raise."""

from __future__ import annotations

from collections.abc import Mapping


class SagaError(Exception):
    """The base of all errors of the saga engines."""


class UnknownSagaError(SagaError, LookupError):
    """No saga has this id, or no definition has this name."""


class SagaConflictError(SagaError):
    """The request does not fit the saga's state, or its id belongs to a saga with another input."""


class LeaseLostError(SagaError):
    """The worker no longer holds the saga. Nothing was written."""


class JournalUnavailableError(SagaError, ConnectionError):
    """The journal is unreachable. Only reading it again shows if the last write happened."""


class BarrierClosedError(SagaError):
    """The step was compensated before its action arrived, so the action must not happen any more."""


class DefinitionMismatchError(SagaError):
    """The running saga began under a definition that this process lacks."""


class MessagesRefusedError(SagaError):
    """The transport accepted every message except these. Sending them again at once would not help."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        """`reasons`: the reason for each refused message, by its position among the sent ones."""
        super().__init__(f"{len(reasons)} refused: {next(iter(reasons.values()))}")
        self.reasons = reasons


class TooLargeError(SagaError, ValueError):
    """An input or result that is too large for a saga. Store it elsewhere, and let the step return a reference."""


class NotJsonError(SagaError, TypeError):
    """An input, result or message that JSON cannot represent."""
