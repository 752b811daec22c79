"""One model call. It decides, without I/O, which candidate is attempted next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from voice_policies import ModelRoute
from voice_runtime import Attempt as Admission
from voice_runtime import CircuitOpenError, Clock, Outbound

from voice_models.attempt import ModelAttempt
from voice_models.candidate import Candidate
from voice_models.classification import ErrorClass
from voice_models.cooldown import Cooldowns
from voice_models.errors import ModelAttemptError, ModelError, ModelRefusedError
from voice_models.request import ModelRequest
from voice_models.token_budget import BudgetExceededError, retry_after_of

NEVER = float("inf")
FALL_BACK: frozenset[ErrorClass] = frozenset(
    {
        "rate_limited",
        "overloaded",
        "server_error",
        "connection_failed",
        "first_token_timeout",
        "truncated",
        "quota_exhausted",
        "authentication",
        "model_not_found",
        "context_exceeded",
    }
)
"""Error classes after which the next candidate is attempted. An error of any other class ends the call."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No candidate may be attempted now. Ask again after `seconds`."""

    seconds: float


class ModelCall:
    """The candidates of one call, and the attempts made so far."""

    def __init__(  # noqa: PLR0913  # the policies of the call and the state of the process
        self,
        *,
        route_name: str,
        route: ModelRoute,
        request: ModelRequest,
        candidates: Mapping[str, tuple[Candidate, Outbound]],
        cooldowns: Cooldowns,
        clock: Clock,
        random: Random,
        target: str,
        deadline: float,
    ) -> None:
        """Begin a call.

        `candidates` is in order of preference. The call policies of each candidate have a breaker of their own.
        """
        self.request = request
        self.route_name, self.route = route_name, route
        self.started = clock.monotonic()
        self.attempts = 0
        self.has_fallen_back = False
        """True if an attempt began after another candidate's attempt had failed."""
        self._candidates = candidates
        self._cooldowns = cooldowns
        self._clock, self._random = clock, random
        self._target = target
        self._deadline = min(self.started + route.timeout.total.seconds, deadline)
        self._tried: Counter[str] = Counter()
        self._window = 0
        """The largest context window that the request has exceeded, in tokens; 0 if none."""
        self._failure: ModelAttemptError | None = None
        self._full: dict[str, float] = {}
        """By the candidate's name: the time until which the candidate's own budget has no room."""

    @property
    def preferred(self) -> Candidate | None:
        """The first candidate that has the required capabilities. `None` if none has them."""
        return next((candidate for candidate, _ in self._candidates.values()), None)

    def next(self, *, besides: Candidate | None = None) -> ModelAttempt | Wait:
        """The next attempt, at any candidate except `besides`, or the wait before it.

        Raises `ModelError` if no further attempt is possible.
        """
        if self._failure is not None and (
            self.attempts >= self.route.fallback.max_attempts or self._clock.monotonic() >= self._deadline
        ):
            raise self._failure
        usable = [candidate for candidate in self._usable() if candidate is not besides]
        if not usable:
            raise self._failure or self._refused("context_exceeded" if self._candidates else "no_candidate")
        earliest = NEVER
        for candidate in usable:
            wait = self._blocked_for(candidate)
            if not wait:
                attempt = self._admitted(candidate)
                if isinstance(attempt, ModelAttempt):
                    return attempt
                wait = attempt
            earliest = min(earliest, wait)
        now = self._clock.monotonic()
        if earliest < NEVER and now + earliest + self.route.timeout.first_token.seconds <= self._deadline:
            return Wait(earliest)
        if self._failure is not None:
            raise self._failure
        raise self._refused("no_candidate", None if earliest == NEVER else earliest)

    def hedge(self, first: ModelAttempt) -> ModelAttempt | None:
        """A second attempt, at another candidate, while `first` runs. `None` if no such attempt may start now."""
        if self.attempts >= self.route.fallback.max_attempts:
            return None
        try:
            attempt = self.next(besides=first.candidate)
        except ModelError:
            return None
        return None if isinstance(attempt, Wait) else attempt

    def budget_refused(self, attempt: ModelAttempt, error: BudgetExceededError) -> None:
        """End the attempt because a budget refused it.

        Raises `ModelRefusedError` for a budget of the tenant, because that budget refuses every candidate.
        """
        wait = retry_after_of(error)
        refused = self._refused("budget_exceeded", wait)
        attempt.refused(refused)
        if not error.claim.is_of_deployment:
            raise refused from error
        self._full[attempt.candidate.name] = self._clock.monotonic() + (NEVER if wait is None else wait)

    def begun(self, attempt: ModelAttempt) -> None:
        """Count the attempt. Call this when every budget has reserved the attempt's tokens."""
        self.attempts += 1
        if self._failure is not None and self._failure.candidate != attempt.candidate.name:
            self.has_fallen_back = True
        self._tried[attempt.candidate.name] += 1

    def failed(self, error: ModelError) -> float:
        """Record that an attempt at the candidate `error.candidate` has failed.

        Returns the seconds to wait before the next attempt. Raises `error` if content was delivered, or if its
        `error_class` ends the call.
        """
        if not isinstance(error, ModelAttemptError) or error.error_class not in FALL_BACK:
            raise error
        if error.error_class == "context_exceeded":
            candidate, _ = self._candidates[error.candidate]
            self._window = max(self._window, candidate.model.context_window)
        self._failure = error
        return self._random.random() * self.route.fallback.backoff.seconds

    def _usable(self) -> list[Candidate]:
        """The candidates that could answer the request. The least attempted candidate is first."""
        distinct, needed = self.route.fallback.distinct, self.request.reserved_tokens
        fitting = [
            candidate
            for candidate, _ in self._candidates.values()
            if candidate.model.context_window >= needed
            and candidate.model.context_window > self._window
            and not (distinct and self._tried[candidate.name])
        ]
        return sorted(fitting, key=lambda candidate: self._tried[candidate.name])

    def _blocked_for(self, candidate: Candidate) -> float:
        """Seconds until the candidate has no cooldown and its own budget has room."""
        full = self._full.get(candidate.name, 0.0) - self._clock.monotonic()
        return max(self._cooldowns.remaining(candidate), full, 0.0)

    def _admitted(self, candidate: Candidate) -> ModelAttempt | float:
        """An attempt at the candidate, or the seconds until its breaker may admit one."""
        _, policies = self._candidates[candidate.name]
        admission = Admission(policies, None, NEVER, self._clock.monotonic(), self.attempts + 1)
        admission.began = self.started
        try:
            admission.admit()
        except CircuitOpenError as error:
            return NEVER if error.retry_after is None else error.retry_after
        return ModelAttempt(
            route_name=self.route_name,
            route=self.route,
            request=self.request,
            candidate=candidate,
            admission=admission,
            cooldowns=self._cooldowns,
            clock=self._clock,
            deadline=self._deadline,
        )

    def _refused(self, reason: ErrorClass, retry_after: float | None = None) -> ModelRefusedError:
        return ModelRefusedError(self._target, self.route_name, reason, retry_after=retry_after, attempts=self.attempts)
