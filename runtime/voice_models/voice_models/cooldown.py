"""Cooldowns: after certain errors of a provider, no call attempts the affected deployments for some time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from voice_policies import Cooldown as Policy
from voice_runtime import Clock, Event, Events

from voice_models.candidate import Candidate
from voice_models.classification import ErrorClass


class _Key(NamedTuple):
    """The deployment and the credential in cooldown.

    If `deployment` is empty, every deployment with this credential is in cooldown. If `credential` is empty, the
    deployment is in cooldown with every credential.
    """

    deployment: str
    credential: str


class _Cooldown(NamedTuple):
    until: float
    reason: ErrorClass


class Cooldowns:
    """The cooldowns of one process. A reload of the bundle keeps them."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._now = clock.monotonic
        self._events = events
        self._cooldowns: dict[_Key, _Cooldown] = {}

    def remaining(self, candidate: Candidate) -> float:
        """Seconds until the candidate may be attempted; 0 if it is not in cooldown."""
        credential = candidate.deployment.credential
        keys = (_Key(candidate.name, credential), _Key("", credential), _Key(candidate.name, ""))
        until = max((self._cooldowns[key].until for key in keys if key in self._cooldowns), default=0.0)
        return max(until - self._now(), 0.0)

    def reasons(self, candidate: Candidate) -> Iterator[ErrorClass]:
        """The error classes that put the candidate into its current cooldowns."""
        credential = candidate.deployment.credential
        for key in (_Key(candidate.name, credential), _Key("", credential), _Key(candidate.name, "")):
            if key in self._cooldowns and self._cooldowns[key].until > self._now():
                yield self._cooldowns[key].reason

    def record(self, candidate: Candidate, reason: ErrorClass, retry_after: float | None, policy: Policy) -> None:
        """Start a cooldown if the error class `reason` requires one.

        `retry_after` is the wait in seconds that the provider named.
        """
        key, seconds = _Key(candidate.name, candidate.deployment.credential), 0.0
        match reason:
            case "rate_limited":
                seconds = min(retry_after or policy.default.seconds, policy.max.seconds)
            case "overloaded":
                seconds = min(retry_after or 0.0, policy.max.seconds)
            case "quota_exhausted" | "authentication":
                key, seconds = key._replace(deployment=""), policy.quota.seconds
            case "model_not_found":
                key, seconds = key._replace(credential=""), policy.quota.seconds
        if seconds:
            self._start(key, candidate, reason, seconds)

    def _start(self, key: _Key, candidate: Candidate, reason: ErrorClass, seconds: float) -> None:
        now = self._now()
        until = now + seconds
        before = self._cooldowns.get(key)
        if before is None or before.until < until:
            self._cooldowns[key] = _Cooldown(until, reason)
        if before is None or before.until <= now:  # one event for each cooldown, not for each request in flight
            self._events.publish(
                Event("transition", "cooldown", candidate.name, 0, seconds, "available", "in_cooldown", reason)
            )
