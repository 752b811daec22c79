"""The states of a circuit breaker. What holds them, and moves from one to the next, is in `circuit_breaker`."""

from __future__ import annotations

from typing import ClassVar, Literal

from voice_runtime.window import Window

StateName = Literal["closed", "open", "half_open", "forced_open", "disabled"]
"""resilience4j's state names, which its dashboards filter on."""


class State:
    """One stay in one state. Calls are admitted by it, and their results come back to it."""

    __slots__ = ()
    name: ClassVar[StateName]


class Closed(State):
    """Calls pass; failures are counted. `calls` is `None` where no ratio needs a window."""

    __slots__ = ("calls", "failures", "slow_calls", "streak")
    name = "closed"
    calls: Window | None
    failures: Window | None
    slow_calls: Window | None

    def __init__(self, sampling_duration: float | None, now: float) -> None:
        self.streak = 0
        self.calls = self.failures = self.slow_calls = None
        if sampling_duration is not None:
            self.calls, self.failures, self.slow_calls = (Window(sampling_duration, now) for _ in range(3))


class Open(State):
    """Calls are refused until `until`."""

    __slots__ = ("until",)
    name = "open"

    def __init__(self, until: float) -> None:
        self.until = until


class HalfOpen(State):
    """A few probes decide; a round that has not decided by `until` has failed."""

    __slots__ = ("permits", "successes", "until")
    name = "half_open"

    def __init__(self, permits: int, until: float) -> None:
        self.permits = permits
        self.successes = 0
        self.until = until


class ForcedOpen(State):
    """Refuses every call until somebody closes the breaker."""

    __slots__ = ()
    name = "forced_open"


class Disabled(State):
    """Admits every call and counts none until somebody closes the breaker."""

    __slots__ = ()
    name = "disabled"
