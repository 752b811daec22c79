"""The states of a circuit breaker. `circuit_breaker` holds them and makes the transitions."""

from __future__ import annotations

from math import inf
from typing import ClassVar, Literal

from voice_runtime.window import Window

StateName = Literal["closed", "open", "half_open", "forced_open", "disabled"]
"""The names of resilience4j's states. Dashboards for resilience4j filter on these names."""


class State:
    """A state that the breaker entered, or a probe. A result counts only for the object that admitted its call."""

    __slots__ = ()
    name: ClassVar[StateName]
    until: float = -inf
    """The time until which the state refuses every call. Only `Open` sets this time."""


class Closed(State):
    """Admits calls, and counts failures. The windows are `None` if no ratio of the policy needs them."""

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
    """Refuses calls until the time `until`.

    Then the round of probes in `round` continues; `None` starts a new round.
    """

    __slots__ = ("round", "until")
    name = "open"

    def __init__(self, until: float, round_: HalfOpen | None) -> None:
        self.until = until
        self.round = round_


class HalfOpen(State):
    """A round of probes. The results of the probes end the round; time alone does not."""

    __slots__ = ("probes", "successes")
    name = "half_open"

    def __init__(self) -> None:
        self.successes = 0
        self.probes: dict[Probe, None] = {}
        """Probes in flight, the oldest first."""

    def oldest_probe_expires_at(self, patience: float) -> float:
        """The time at which the oldest probe in flight has taken `patience` seconds; infinity without a probe."""
        oldest = [probe.since for probe in list(self.probes)[:1]] or [inf]
        return oldest[0] + patience

    def abandon_probes(self) -> None:
        """Stop waiting for the probes in flight, so that new probes may start. A late success still counts."""
        for probe in list(self.probes):
            probe.given_up = True
        self.probes.clear()


class Probe(State):
    """One call of a round, from admission to result."""

    __slots__ = ("answered", "given_up", "round", "since")
    name = "half_open"

    def __init__(self, round_: HalfOpen, since: float) -> None:
        self.round = round_
        self.since = since
        self.answered = self.given_up = False


class ForcedOpen(State):
    """Refuses every call. Only the methods `close` and `disable` of `CircuitBreaker` end this state."""

    __slots__ = ()
    name = "forced_open"


class Disabled(State):
    """Admits every call, whatever the results. Only the methods `close` and `open` of `CircuitBreaker` end it."""

    __slots__ = ()
    name = "disabled"
