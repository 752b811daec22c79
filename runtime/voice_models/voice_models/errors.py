"""The errors of model calls. They contain no text of a provider, because that text may repeat a prompt or a key.

    voice_runtime.VoiceRuntimeError
    └── ModelError                     route, candidate, error_class, retry_after, attempts
        ├── ModelRefusedError          no candidate, or no budget for an attempt. It is a CallRejectedError too
        ├── ModelAttemptError          the last attempt failed before its first content
        └── ModelStreamError           the answer broke off after its first content; usage

They are not httpx errors, so an SDK neither retries nor wraps them.
"""

from __future__ import annotations

from typing import ClassVar

from voice_runtime import (
    CallRejectedError,
    DependencyFailure,
    Failure,
    VoiceRuntimeError,
    classify,
    dependency_failure,
)

from voice_models.classification import ErrorClass
from voice_models.usage import NOTHING, Usage

BLAMES_PROVIDER: frozenset[ErrorClass] = frozenset(
    {"overloaded", "server_error", "connection_failed", "first_token_timeout", "truncated", "idle_timeout"}
)
"""Error classes that the circuit breaker of a deployment counts as failures. All other classes are neutral."""


class ModelError(VoiceRuntimeError):
    """The base of all errors of model calls. `target` is the outbound call."""

    policy = "model_route"
    summary = "the model call failed"
    cause: ClassVar[str]

    def __init__(  # noqa: PLR0913  # the caller may act on each fact
        self,
        target: str,
        route: str,
        error_class: ErrorClass,
        *,
        candidate: str = "",
        retry_after: float | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(target, retry_after, attempts)
        self.route = route
        """The name of the model route."""
        self.candidate = candidate
        """The deployment of the last attempt; empty in a `ModelRefusedError`."""
        self.error_class: ErrorClass = error_class
        """The reason why the call failed."""

    @property
    def sentence(self) -> str:  # type: ignore[override]  # route and candidate vary
        """The sentence of the error, with route and candidate."""
        at = f" at {self.candidate}" if self.candidate else ""
        return f"model call {{}} {self.cause}: route {self.route}{at}: {self.error_class}"


class ModelRefusedError(ModelError, CallRejectedError):
    """No candidate could be attempted, or a budget of the tenant refused an attempt.

    `error_class` is `no_candidate`, `budget_exceeded` or `context_exceeded`.
    """

    cause = "was refused"


class ModelAttemptError(ModelError):
    """The last attempt failed before its first content, and no further attempt was allowed or possible."""

    cause = "failed"


class ModelStreamError(ModelError):
    """The answer broke off after its first content.

    No further attempt follows, because the caller already has a part of the answer.
    """

    cause = "broke off"
    usage: Usage = NOTHING
    """The tokens used until the answer broke off. They are an estimate unless the provider reported them."""


@classify.register
def _(error: ModelError) -> Failure | None:
    return Failure() if error.error_class in BLAMES_PROVIDER else None


@dependency_failure.register
def _(error: ModelError) -> DependencyFailure:
    return DependencyFailure(error.error_class, error.retry_after)
