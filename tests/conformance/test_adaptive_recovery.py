from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from voice_policies import Adaptive as Policy
from voice_policies import Duration, Rate, RateLimit
from voice_runtime import Caller
from voice_runtime.rate_limit.adaptive import Adaptive
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.rate_limit.keyed import Keyed
from voice_runtime.testing import FakeClock

from stack.voiceassistant import TENANT
from tests.driver import seeded

OUTAGE = 60.0
"""Duration of the outage in seconds."""
CATALOGUE = {
    f"{service.name}.{operation.name}": limit.limit
    for service in TENANT.graph.services
    for operation in service.operations
    for limit in operation.rate_limits
    if isinstance(limit.limit, Policy)
}


@dataclass
class Simulation:
    """Requests at a steady rate, which fail until the time `OUTAGE` and succeed afterwards."""

    policy: Policy
    demand: float
    """Requests per second."""
    refused: list[float] = field(default_factory=list)
    lowest: float = float("inf")

    def run(self, end: float) -> None:
        now = 0.0
        limit = Adaptive(self.policy, now, seeded(3))
        while now < end:
            epoch = limit.epoch
            if limit.take(now):
                self.refused.append(now)
            else:
                limit.record(epoch, now, 0.01, failed=now < OUTAGE)
            self.lowest = min(self.lowest, limit.rate)
            now += 1 / self.demand


def has_recovered(simulation: Simulation) -> bool:
    return max(simulation.refused, default=0.0) <= OUTAGE + simulation.policy.longest_recovery


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0], ids="{:.0%} of the highest rate".format)
def test_the_platforms_limits_recover_within_half_a_minute(name: str, share: float) -> None:
    policy = CATALOGUE[name]
    assert policy.longest_recovery <= 30
    simulation = Simulation(policy, demand=share * policy.max_rate.per_second)
    simulation.run(OUTAGE + 2 * policy.longest_recovery)
    assert simulation.lowest == policy.min_rate.per_second
    assert has_recovered(simulation)


def rates(highest: int) -> st.SearchStrategy[Rate]:
    return st.integers(1, highest).map(lambda count: Rate(f"{count}/s"))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    lowest, highest = sorted((draw(rates(20)), draw(rates(80))), key=lambda rate: rate.per_second)
    return Policy(
        min_rate=lowest,
        max_rate=highest,
        increase=draw(rates(20)),
        interval=Duration(draw(st.sampled_from(["100ms", "500ms", "1s"]))),
        minimum_throughput=draw(st.integers(1, 15)),
        burst=draw(st.integers(1, 20)),
    )


ALIASED = Policy(
    min_rate=Rate("5/s"),
    max_rate=Rate("24/s"),
    burst=1,
    interval=Duration("100ms"),
    minimum_throughput=19,
)


@given(policies(), st.floats(0.1, 150))
@example(ALIASED, 22.0)
def test_every_valid_policy_recovers_within_its_longest_recovery(policy: Policy, demand: float) -> None:
    # At exactly the highest rate, a rounding error could refuse one of the evenly spaced requests.
    simulation = Simulation(policy, demand=min(demand, 0.9 * policy.max_rate.per_second))
    simulation.run(OUTAGE + policy.longest_recovery + 20)
    assert has_recovered(simulation)


def test_a_policy_is_refused_if_it_recovers_too_late_or_never_lowers_its_rate() -> None:
    with pytest.raises(ValidationError, match=r"recovers from an outage in 1\d\d\d s, expected at most 300 s: raise"):
        Policy(min_rate=Rate("5/s"), max_rate=Rate("1000/s"), burst=1)
    with pytest.raises(ValidationError, match="error_ratio 100% is never exceeded"):
        Policy.model_validate({"min_rate": "5/s", "max_rate": "9/s", "burst": 1, "error_ratio": "100%"})


def test_an_unused_key_is_dropped_even_if_its_rate_was_lowered() -> None:
    clock = FakeClock(0.0)
    policy = RateLimit(limit=Policy(min_rate=Rate("1/s"), max_rate=Rate("8/s"), burst=8), key="tenant")
    gate = Gate("run", policy, clock, seeded())
    fallen = gate.adaptive(Caller(tenant="acme"))
    assert fallen is not None
    for number in range(10):
        fallen.record(fallen.epoch, 2.0 if number == 9 else 1.0, 0.1, failed=True)
    assert fallen.rate == 4
    assert isinstance(gate.limits, Keyed)
    clock.advance(2.0)
    gate.adaptive(Caller(tenant="umbrella"))
    assert gate.adaptive(Caller(tenant="acme")) is fallen
    clock.advance(fallen.policy.longest_recovery + 1)
    for number in range(4):
        gate.adaptive(Caller(tenant=f"tenant-{number}"))
    assert gate.adaptive(Caller(tenant="acme")) is not fallen
