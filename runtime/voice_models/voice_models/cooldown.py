"""Cooldowns: after some errors of its provider, a deployment rests, which means that it is not attempted for a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from voice_policies import Cooldown as Policy
from voice_runtime import Clock, Event, Events

from voice_models.candidate import Candidate
from voice_models.classification import ErrorClass


class _Key(NamedTuple):
    """The deployment and the credential that rest. An empty field stands for all deployments or all credentials."""

    deployment: str
    credential: str


class _Rest(NamedTuple):
    until: float
    reason: ErrorClass


class Cooldowns:
    """The resting deployments of one process. A reload of the bundle keeps them."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self._now = clock.monotonic
        self._events = events
        self._rests: dict[_Key, _Rest] = {}

    def resting(self, candidate: Candidate) -> float:
        """Seconds until the candidate may be attempted; 0 if it does not rest."""
        credential = candidate.deployment.credential
        keys = (_Key(candidate.name, credential), _Key("", credential), _Key(candidate.name, ""))
        until = max((self._rests[key].until for key in keys if key in self._rests), default=0.0)
        return max(until - self._now(), 0.0)

    def reasons(self, candidate: Candidate) -> Iterator[ErrorClass]:
        """The reasons for which the candidate rests now."""
        credential = candidate.deployment.credential
        for key in (_Key(candidate.name, credential), _Key("", credential), _Key(candidate.name, "")):
            if key in self._rests and self._rests[key].until > self._now():
                yield self._rests[key].reason

    def note(self, candidate: Candidate, reason: ErrorClass, asked: float | None, policy: Policy) -> None:
        """Begin a rest if the error class `reason` requires it.

        `asked` is the wait in seconds that the provider named.
        """
        key, seconds = _Key(candidate.name, candidate.deployment.credential), 0.0
        match reason:
            case "rate_limited":
                seconds = min(asked or policy.default.seconds, policy.max.seconds)
            case "overloaded":
                seconds = min(asked or 0.0, policy.max.seconds)
            case "quota_exhausted" | "authentication":
                key, seconds = key._replace(deployment=""), policy.quota.seconds
            case "model_not_found":
                key, seconds = key._replace(credential=""), policy.quota.seconds
        if seconds:
            self._rest(key, candidate, reason, seconds)

    def _rest(self, key: _Key, candidate: Candidate, reason: ErrorClass, seconds: float) -> None:
        now = self._now()
        until = now + seconds
        before = self._rests.get(key)
        if before is None or before.until < until:
            self._rests[key] = _Rest(until, reason)
        if before is None or before.until <= now:  # one event for each rest, not for each request in flight
            self._events.publish(
                Event("transition", "cooldown", candidate.name, 0, seconds, "in use", "resting", reason)
            )
