"""The errors that the saga engines raise."""

from __future__ import annotations

from collections.abc import Mapping


class SagaError(Exception):
    """The base of all errors of the saga engines."""


class UnknownSagaError(SagaError, LookupError):
    """There is no saga with this id, or no definition with this name."""


class InvalidSagaIdError(UnknownSagaError, ValueError):
    """The id of a saga is empty, too long or not a string, or it contains NUL or half a surrogate pair."""


class SagaConflictError(SagaError):
    """The state of the saga does not allow the request, or the id belongs to a saga with another name or input."""


class LeaseLostError(SagaError):
    """The worker no longer holds the saga. Nothing was written."""


class JournalUnavailableError(SagaError, ConnectionError):
    """The journal cannot be used. The last write may have happened; only the journal shows if it did."""


class WorkCancelledError(SagaError):
    """An action or compensation awaited a cancelled task or call. The step was not cancelled, so it has failed."""


class BarrierClosedError(SagaError):
    """The compensation of the step ran before its action, so the action is refused."""


class DefinitionMismatchError(SagaError):
    """The running saga began under a definition that this process lacks."""


class MessagesRefusedError(SagaError):
    """The transport refused the messages in `reasons`, and accepted all others. An immediate retry does not help."""

    def __init__(self, reasons: Mapping[int, str]) -> None:
        """Create the error. `reasons` maps the position of each refused message to the reason."""
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return f"{len(self.reasons)} messages refused; the first reason: {next(iter(self.reasons.values()))}"


class TooLargeError(SagaError, ValueError):
    """An input or result is too large for a saga. Store the data elsewhere, and let the step return a reference."""


class NotJsonError(SagaError, TypeError):
    """JSON cannot represent the input, result or message."""
