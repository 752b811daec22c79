from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count, cycle
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from voice_policies import CircuitBreaker as Policy
from voice_policies import Duration, Ratio
from voice_runtime import CircuitBreaker, CircuitOpenError, Outbound
from voice_runtime.events import Events
from voice_runtime.outcome import PERMANENT
from voice_runtime.testing import FakeClock

from tests.driver import Recorder, seeded

OUTAGE = 120.0
"""Duration of the callee's outage in seconds. Afterwards the callee is healthy."""
PATIENCE = 45.0
"""Seconds within which a call made in the outage fails or answers late."""


@dataclass
class Calls:
    gap: float
    """Seconds between two arrivals."""
    burst: int = 1
    """Number of calls that arrive at the same time."""
    duration: float = 0.01
    """Seconds that a healthy callee takes for its answer."""
    streamed: bool = False
    """True: each call is a stream that never ends, and `duration` is the time until its first message."""
    scrapes: float = 0.0
    """Seconds between two reads of the breaker's state; 0: the state is not read."""
    in_the_outage: tuple[str, ...] = ("fails", "hangs", "answers late")
    """Results of the calls that begin in the outage, in turn."""


@dataclass
class Simulation:
    policy: Policy
    calls: Calls
    clock: FakeClock = field(default_factory=lambda: FakeClock(0.0))
    last_refused: float = 0.0

    def run(self, end: float) -> None:
        self.breaker = CircuitBreaker("callee", self.policy, clock=self.clock, random=seeded())
        self._number = count()
        self._fates = cycle(self.calls.in_the_outage)
        self._timeline: list[tuple[float, int, Callable[[], Any]]] = []
        self.at(0.0, self.arrive)
        if self.calls.scrapes:
            self.at(0.0, self.scrape)
        while self._timeline[0][0] < end:
            now, _, happen = heapq.heappop(self._timeline)
            self.clock.advance(now - self.clock.monotonic())
            happen()

    def at(self, when: float, happen: Callable[[], Any]) -> None:
        heapq.heappush(self._timeline, (when, next(self._number), happen))

    def scrape(self) -> None:
        self.breaker.current()
        self.at(self.clock.monotonic() + self.calls.scrapes, self.scrape)

    def arrive(self) -> None:
        now = self.clock.monotonic()
        for _ in range(self.calls.burst):
            try:
                state = self.breaker.state
                self.begin(state if state.name == "closed" else self.breaker.acquire(), now)
            except CircuitOpenError as refused:
                self.last_refused = now
                assert (refused.retry_after or 0) > 0
        self.at(now + self.calls.gap, self.arrive)

    def begin(self, state: Any, now: float) -> None:
        fate = next(self._fates) if now < OUTAGE else "answers"
        breaker, duration = self.breaker, self.calls.duration
        if fate == "fails":
            self.at(now + 0.1, lambda: breaker.failure(state, PERMANENT))
        elif fate == "fails late":
            self.at(now + PATIENCE, lambda: breaker.failure(state, PERMANENT))
        elif fate == "answers late":
            self.at(now + PATIENCE, lambda: breaker.success(state, self.clock.monotonic(), PATIENCE))
        elif fate == "answers" and self.calls.streamed:
            self.at(now + duration, lambda: breaker.answered(state, duration))
        elif fate == "answers":
            self.at(now + duration, lambda: breaker.success(state, self.clock.monotonic(), duration))


def bound(policy: Policy, calls: Calls) -> float:
    """Seconds from the end of the outage after which the breaker refuses no call.

    Calls from the outage end within `PATIENCE`. The last of them may be a probe that fails, which adds one break.
    Another probe from the outage may never end. After `half_open_max_duration` the breaker opens for another break.
    After a break the next call is the first probe, so each break adds one gap.
    Afterwards each probe succeeds, and `success_threshold` probes close the breaker, at worst one after the other.
    """
    longest_break = policy.max_break_duration.seconds * (1 + float(policy.break_duration_jitter))
    probes = policy.success_threshold * (calls.gap + calls.duration)
    return PATIENCE + 2 * longest_break + policy.half_open_max_duration.seconds + 2 * calls.gap + probes


def seconds(number: float) -> Duration:
    return Duration(f"{number}s")


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    opens = draw(st.integers(1, 60))
    requests = draw(st.integers(1, 5))
    return Policy(
        consecutive_failures=draw(st.integers(1, 5)),
        break_duration=seconds(opens),
        max_break_duration=seconds(opens * draw(st.integers(1, 5))),
        break_duration_multiplier=draw(st.sampled_from([1.0, 1.5, 10.0])),
        break_duration_jitter=draw(st.sampled_from([Ratio("0%"), Ratio("10%"), Ratio("100%")])),
        half_open_max_requests=requests,
        success_threshold=draw(st.integers(1, requests)),
        half_open_max_duration=seconds(draw(st.integers(1, 60))),
    )


FATES = st.lists(st.sampled_from(["fails", "fails late", "hangs", "answers late"]), min_size=1, max_size=4).map(tuple)
CALLS = st.builds(
    Calls,
    gap=st.sampled_from([0.25, 1.0, 7.0, 60.0, 600.0]),
    burst=st.sampled_from([1, 2, 10]),
    duration=st.sampled_from([0.01, 1.0, 31.0, 90.0, 200.0]),
    streamed=st.booleans(),
    scrapes=st.sampled_from([0.0, 0.5, 15.0]),
    in_the_outage=FATES,
)
ONCE_A_MINUTE = Calls(gap=60.0, in_the_outage=("fails",))
LONG = Calls(gap=1.0, duration=90.0, in_the_outage=("fails",))
SCRAPED = Calls(gap=90.0, scrapes=15.0, in_the_outage=("fails",))


@given(policy=policies(), calls=CALLS)
@example(policy=Policy(), calls=ONCE_A_MINUTE)
@example(policy=Policy(), calls=LONG)
@example(policy=Policy(), calls=SCRAPED)
@settings(max_examples=200, deadline=None)
def test_after_a_bounded_time_a_healthy_callee_gets_every_call(policy: Policy, calls: Calls) -> None:
    simulation = Simulation(policy, calls)
    latest = OUTAGE + bound(policy, calls)
    simulation.run(latest + 10 * calls.gap + 100)
    assert simulation.last_refused <= latest


def opened(clock: FakeClock, *listeners: Recorder) -> CircuitBreaker:
    breaker = CircuitBreaker("callee", Policy(), clock=clock, random=seeded(), events=Events(listeners))
    for _ in range(5):
        breaker.failure(breaker.state, PERMANENT)
    return breaker


def test_reading_the_state_does_not_change_it() -> None:
    breaker = opened(clock := FakeClock(), recorder := Recorder())
    published = len(recorder.events)
    for _ in range(1000):
        clock.advance(1)
        before = breaker.state
        assert breaker.current() in ("open", "half_open")
        assert breaker.state is before
    assert len(recorder.events) == published
    breaker.acquire()
    clock.advance(1000)
    assert breaker.current() == "open"  # the probe hangs
    assert [event.after for event in recorder.events] == ["open", "half_open"]


def test_a_hanging_probe_opens_the_breaker_once() -> None:
    breaker = opened(clock := FakeClock())
    clock.advance(120)
    hung = breaker.acquire()
    clock.advance(31)
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    clock.advance(120)
    second = breaker.acquire()
    breaker.failure(hung, PERMANENT)  # the hanging probe has already been counted
    assert breaker.current() == "half_open"
    breaker.success(second)
    breaker.success(breaker.acquire())
    assert breaker.current() == "closed"


def test_the_late_success_of_a_hanging_probe_resumes_its_round_of_probes() -> None:
    breaker = opened(clock := FakeClock())
    clock.advance(120)
    first, second = breaker.acquire(), breaker.acquire()
    clock.advance(31)
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    breaker.success(first)
    assert breaker.current() == "half_open"
    breaker.success(first)  # a second success of the same probe does not count
    assert breaker.current() == "half_open"
    breaker.success(second)
    assert breaker.current() == "closed"


def test_closing_by_hand_resets_the_open_time_that_failed_probes_have_increased() -> None:
    policy = Policy(
        consecutive_failures=1,
        break_duration=Duration("10s"),
        break_duration_multiplier=2.0,
        break_duration_jitter=Ratio("0%"),
    )
    breaker = CircuitBreaker("callee", policy, clock=(clock := FakeClock()))

    def open_time() -> float:
        breaker.failure(breaker.acquire(), PERMANENT)
        return breaker.state.until - clock.monotonic()

    assert open_time() == pytest.approx(10)
    clock.advance(11)
    assert open_time() == pytest.approx(20), "a failed probe"
    breaker.close()
    assert open_time() == pytest.approx(10)


def test_a_round_of_probes_continues_when_a_reload_lowers_half_open_max_requests() -> None:
    breaker = opened(clock := FakeClock())
    clock.advance(120)
    breaker.success(breaker.acquire())
    breaker.reconfigure(Policy(half_open_max_requests=1, success_threshold=1))
    breaker.success(breaker.acquire())
    assert breaker.current() == "closed"


@pytest.mark.parametrize("synchronous", [False, True], ids=["stream", "stream_sync"])
async def test_a_probe_succeeds_with_the_first_message_of_its_stream(clock: FakeClock, *, synchronous: bool) -> None:
    async def messages() -> AsyncIterator[int]:
        for number in range(2):
            yield number

    breaker = opened(clock)
    pipeline = Outbound("callee", breaker=breaker, clock=clock)
    clock.advance(120)
    for state in ("half_open", "closed"):
        stream: Any = pipeline.stream_sync(range, 2) if synchronous else pipeline.stream(messages)
        assert (next(stream) if synchronous else await anext(stream)) == 0
        assert breaker.current() == state
        clock.advance(3600)  # later messages may take any time
        assert breaker.current() == state
        if synchronous:
            stream.close()
        else:
            await stream.aclose()


async def test_a_stream_that_breaks_after_its_first_message_fails_the_round_of_probes(clock: FakeClock) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise OSError("connection lost")

    breaker = opened(clock)
    pipeline = Outbound("callee", breaker=breaker, clock=clock)
    clock.advance(120)
    with pytest.raises(OSError, match="lost"):
        _ = [message async for message in pipeline.stream(broken)]
    assert breaker.current() == "open"
