from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Degradation as Policy
from voice_policies import DegradationTrigger, DegradedFeature, Duration, Ratio
from voice_runtime import Degradation, Runtime, UnknownNameError
from voice_runtime.events import Events
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, mount, operation
from tests.driver import Recorder

FEATURES = (
    DegradedFeature(name="citations", off_at="partial", fallback="answer without citations"),
    DegradedFeature(name="memory", off_at="full", fallback="this turn alone"),
)
LATENCY = Policy(
    partial=DegradationTrigger(
        enter_error_ratio=Ratio("10%"),
        exit_error_ratio=Ratio("5%"),
        enter_latency=Duration("2s"),
        exit_latency=Duration("1s"),
    ),
    features=FEATURES,
)


def current(level: Degradation) -> str:
    """Return the level. After `assert level.level == "full"`, mypy refuses to compare `level.level` with "normal"."""
    return level.level


def degradation(clock: FakeClock, policy: Policy | None = None, recorder: Recorder | None = None) -> Degradation:
    return Degradation(
        "agent-engine", policy or Policy(features=FEATURES), clock=clock, events=Events([recorder] if recorder else [])
    )


def serve(level: Degradation, clock: FakeClock, *, failures: int, of: int = 100, latency: float = 0.1) -> str:
    """Serve requests over slightly more than three seconds, the default interval of checks. Returns the new level."""
    for number in range(of):
        clock.advance(3.1 / of)
        level.record(clock.monotonic(), latency, failed=number < failures)
    return level.level


def test_d1_the_level_rises_immediately_and_falls_one_step_at_a_time(clock: FakeClock) -> None:
    level = degradation(clock)
    assert serve(level, clock, failures=40) == "full"
    seen = [level.level]
    for _ in range(40):
        serve(level, clock, failures=0)
        if level.level != seen[-1]:
            seen.append(level.level)
    assert seen == ["full", "partial", "normal"]


def test_d1_the_level_does_not_change_while_the_error_ratio_is_between_the_thresholds(clock: FakeClock) -> None:
    level = degradation(clock)
    serve(level, clock, failures=12)
    assert serve(level, clock, failures=12) == "partial"
    for _ in range(60):
        assert serve(level, clock, failures=7) == "partial"
    for _ in range(60):
        serve(level, clock, failures=3)
    assert current(level) == "normal"


def test_d1_alternating_failures_and_successes_cause_few_transitions(clock: FakeClock) -> None:
    level = degradation(clock, Policy(sampling_duration=Duration("3s"), dwell_duration=Duration("30s")))
    for number in range(200):  # 200 × 3.1 s = 620 s
        serve(level, clock, failures=0 if number % 2 else 20)
    assert level.transitions <= 2 * 600 / 30  # at most a rise and a fall in each whole `dwell_duration`


def test_d1_the_level_does_not_rise_before_minimum_throughput_requests(clock: FakeClock) -> None:
    level = degradation(clock)
    assert serve(level, clock, failures=19, of=19) == "normal"
    assert serve(level, clock, failures=1, of=1) == "full"


def test_d1_latency_raises_and_lowers_the_level(clock: FakeClock) -> None:
    level = degradation(clock, LATENCY)
    serve(level, clock, failures=0, latency=2.5)
    assert serve(level, clock, failures=0, latency=2.5) == "partial"
    for _ in range(30):
        assert serve(level, clock, failures=0, latency=1.5) == "partial"  # below enter, above exit
    for _ in range(30):
        serve(level, clock, failures=0, latency=0.5)
    assert current(level) == "normal"


def test_d2_a_manual_override_takes_precedence_and_survives_a_reload(clock: FakeClock, tmp_path: Any) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(degradation=Policy(features=FEATURES))), clock=clock)
    assert runtime.degradation is not None
    runtime.degradation.override("partial")
    mount(tmp_path, bundle(degradation=Policy(features=FEATURES[:1], override="full")))
    assert runtime.reload()
    assert current(runtime.degradation) == "partial"
    assert serve(runtime.degradation, clock, failures=100) == "partial"
    runtime.degradation.follow()
    assert current(runtime.degradation) == "full"  # from the override in the policy


def test_d2_a_manual_override_ends_after_its_duration(clock: FakeClock) -> None:
    level = degradation(clock)
    level.override("full", 60)
    clock.advance(59)
    assert current(level) == "full"
    clock.advance(2)
    assert current(level) == "normal"


def test_d2_the_policys_override_takes_precedence_over_the_triggers(clock: FakeClock) -> None:
    level = degradation(clock, Policy(override="normal"))
    assert serve(level, clock, failures=100) == "normal"


async def test_d3_a_feature_is_decided_once_per_request(clock: FakeClock, tmp_path: Any) -> None:
    mounted = mount(tmp_path, bundle(inbound=(operation("run"),), degradation=Policy(features=FEATURES)))
    runtime = Runtime.load(mounted, clock=clock)
    assert runtime.degradation is not None
    async with runtime.request("run") as before:
        assert before.feature("citations")
        runtime.degradation.override("partial")
        assert before.feature("citations")
        async with runtime.request("run") as after:
            assert (after.feature("citations"), after.feature("memory")) == (False, True)
    with pytest.raises(UnknownNameError):
        before.feature("unheard-of")


def test_d4_without_traffic_the_level_returns_to_normal(clock: FakeClock) -> None:
    level = degradation(clock)
    assert serve(level, clock, failures=100) == "full"
    clock.advance(40)
    assert current(level) == "partial"
    clock.advance(40)
    assert current(level) == "normal"


async def test_failures_of_the_runtimes_requests_raise_the_level(clock: FakeClock, tmp_path: Any) -> None:
    mounted = mount(tmp_path, bundle(inbound=(operation("run"),), degradation=Policy(features=FEATURES)))
    runtime = Runtime.load(mounted, clock=clock, listeners=[recorder := Recorder()])
    for _ in range(20):
        with pytest.raises(OSError, match="broken"):
            async with runtime.request("run"):
                raise OSError("broken")
    assert runtime.degradation is not None
    assert current(runtime.degradation) == "full"
    assert [(event.before, event.after) for event in recorder.of("transition")] == [("normal", "full")]
