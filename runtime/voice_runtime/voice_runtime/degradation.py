"""Degradation: switches features off to keep the core working.

The level follows the error rate and latency of served operations, or an override. It rises directly to the highest
level whose trigger is met. It falls one level at a time, when two conditions hold: the level has lasted for
`dwell_duration`, and error rate and latency are below the level's exit thresholds. Without requests, both are below.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock

from voice_policies import Degradation as Policy
from voice_policies import DegradationLevel, DegradationTrigger

from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import UnknownNameError
from voice_runtime.events import Event, Events
from voice_runtime.window import BUCKETS, Window

LEVELS: tuple[DegradationLevel, ...] = ("normal", "partial", "full")
SLOW_SHARE = 0.05
"""If at least this share of the requests has a latency of X or more, P95 has reached X."""


class Degradation:
    """The degradation level of one process."""

    def __init__(
        self, service: str, policy: Policy, *, clock: Clock = SYSTEM_CLOCK, events: Events | None = None
    ) -> None:
        self.service = service
        self.transitions = 0
        self._now = clock.monotonic
        self._events = events or Events()
        self._lock = Lock()
        self._automatic: DegradationLevel = "normal"
        self._override: tuple[DegradationLevel, float] | None = None
        self._entered = self._now()
        self._configure(policy)

    def reconfigure(self, policy: Policy) -> None:
        """Continue under a new policy at the current level. A manual override stays."""
        with self._lock:
            self._configure(policy)

    def _configure(self, policy: Policy) -> None:
        now, duration = self._now(), policy.sampling_duration.seconds
        self.policy = policy
        self._features = {feature.name: LEVELS.index(feature.off_at) for feature in policy.features}
        self._triggers: dict[DegradationLevel, DegradationTrigger] = {"partial": policy.partial, "full": policy.full}
        thresholds = [
            latency.seconds
            for trigger in self._triggers.values()
            for latency in (trigger.enter_latency, trigger.exit_latency)
            if latency
        ]
        self._lowest = min(thresholds, default=NEVER)
        self._requests, self._failures = Window(duration, now), Window(duration, now)
        self._slower = {threshold: Window(duration, now) for threshold in thresholds}
        self._step = duration / BUCKETS
        self._due = now + self._step

    def __repr__(self) -> str:
        return f"<Degradation {self.service}: {self.level}>"

    @property
    def level(self) -> DegradationLevel:
        """The current level. A manual override comes first, then the policy's override, then the triggers."""
        return self.level_at(self._now())

    def level_at(self, now: float) -> DegradationLevel:
        """The current level, for a caller that already knows the present time `now`."""
        override = self._override
        if override is not None and now < override[1]:
            return override[0]
        if self.policy.override is not None:
            return self.policy.override
        if now >= self._due:
            self._evaluate(now)
        return self._automatic

    def is_on(self, feature: str, level: DegradationLevel) -> bool:
        """True if `feature` is on at `level`. Raises `UnknownNameError` for a feature that the policy does not name."""
        off_at = self._features.get(feature)
        if off_at is None:
            raise UnknownNameError("feature", feature, self._features)
        return LEVELS.index(level) < off_at

    def override(self, level: DegradationLevel, duration: float = NEVER) -> None:
        """Override the level manually for `duration` seconds.

        This override takes precedence over the triggers and the policy's override, and survives a reload. Raises
        `ValueError` for a duration that is not above 0.
        """
        if not duration > 0:
            raise ValueError(f"the duration of an override must be above 0 s, not {duration}")
        before = self.level
        self._override = (level, self._now() + duration)
        self._publish(before, level, "override")

    def follow(self) -> None:
        """End the manual override. Then the policy's override decides. If there is none, the triggers decide."""
        before, self._override = self.level, None
        self._publish(before, self.level, "follow")

    def record(self, now: float, latency: float, *, failed: bool) -> None:
        """Count a request that was served at `now`. Counting needs no lock, because `Window.add` loses no count."""
        self._requests.add(now)
        if failed:
            self._failures.add(now)
        if latency >= self._lowest:
            for threshold, window in self._slower.items():
                if latency >= threshold:
                    window.add(now)
        if failed or now >= self._due:
            self._evaluate(now)

    def _evaluate(self, now: float) -> None:
        with self._lock:
            self._due = now + self._step
            before = self._automatic
            level, reason = self._next(now)
            if level == before:
                return
            self._automatic = level
            self._entered = now
            self.transitions += 1
        self._publish(before, level, reason)

    def _next(self, now: float) -> tuple[DegradationLevel, str]:
        at = LEVELS.index(self._automatic)
        entered, reason = max(self._reached_levels(now), default=(0, ""))
        if entered > at:
            return LEVELS[entered], reason
        dwelt = now - self._entered >= self.policy.dwell_duration.seconds
        falls = at > 0 and dwelt and self._may_leave(LEVELS[at], now)
        return (LEVELS[at - 1], "dwell_duration") if falls else (LEVELS[at], "")

    def _reached_levels(self, now: float) -> Iterator[tuple[int, str]]:
        """Each level whose trigger is met, with the field of the reached threshold, such as `enter_latency`."""
        requests = self._requests.total(now)
        if requests < self.policy.minimum_throughput:
            return
        failures = self._failures.total(now)
        for level, trigger in self._triggers.items():
            if trigger.enter_latency is not None and self._is_slow(trigger.enter_latency.seconds, requests, now):
                yield LEVELS.index(level), "enter_latency"
            if failures >= trigger.enter_error_ratio * requests:
                yield LEVELS.index(level), "enter_error_ratio"

    def _may_leave(self, level: DegradationLevel, now: float) -> bool:
        trigger, requests = self._triggers[level], self._requests.total(now)
        if requests == 0:
            return True
        slow = trigger.exit_latency is not None and self._is_slow(trigger.exit_latency.seconds, requests, now)
        return not slow and self._failures.total(now) < trigger.exit_error_ratio * requests

    def _is_slow(self, threshold: float, requests: int, now: float) -> bool:
        return self._slower[threshold].total(now) >= SLOW_SHARE * requests

    def _publish(self, before: DegradationLevel, after: DegradationLevel, reason: str) -> None:
        if before != after:
            self._events.publish(
                Event("transition", "degradation", self.service, before=before, after=after, reason=reason)
            )
