from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule
from voice_policies import CircuitBreaker as Policy
from voice_policies import Duration, Ratio
from voice_runtime import CircuitBreaker, CircuitOpenError
from voice_runtime.outcome import PERMANENT
from voice_runtime.rate_limit.keyed import KeyedTokenBucket
from voice_runtime.rate_limit.sliding_window import SlidingWindow, WindowShape
from voice_runtime.testing import FakeClock

from tests.driver import seeded

POLICY = Policy(
    consecutive_failures=3,
    break_duration=Duration("10s"),
    break_duration_multiplier=1.0,
    break_duration_jitter=Ratio("0%"),
    half_open_max_requests=3,
    success_threshold=2,
    half_open_max_duration=Duration("20s"),
)


class Admitted:
    def __init__(self, generation: int, since: float) -> None:
        self.generation, self.since = generation, since
        self.awaited = True


class BreakerModel:
    """A simple model of a breaker. `enter` begins a generation. Each call remembers the generation of its admission."""

    def __init__(self) -> None:
        self.state, self.generation, self.until = "closed", 0, 0.0
        self.streak = self.successes = 0
        self.probes: list[Admitted] = []

    def enter(self, state: str, until: float = 0.0) -> None:
        self.state, self.until = state, until
        self.generation += 1
        self.streak = self.successes = 0
        self.probes = []

    def hangs(self, now: float) -> bool:
        return self.state == "half_open" and any(now >= probe.since + 20 for probe in self.probes)

    def shown(self, now: float) -> str:
        if self.state in ("open", "interrupted"):
            return "half_open" if now >= self.until else "open"
        return "open" if self.hangs(now) else self.state

    def admit(self, now: float) -> Admitted | None:
        if self.state == "open" and now >= self.until:
            self.enter("half_open")
        elif self.state == "interrupted" and now >= self.until:
            self.state = "half_open"
        elif self.hangs(now):
            for probe in self.probes:
                probe.awaited = False
            self.state, self.until, self.probes = "interrupted", now + 10, []
        if self.state in ("open", "interrupted"):
            return None
        admitted = Admitted(self.generation, now)
        if self.state == "half_open":
            if self.probes and len(self.probes) + self.successes >= 3:
                return None
            self.probes.append(admitted)
        return admitted

    def end(self, call: Admitted, outcome: str, now: float) -> None:
        if call.generation != self.generation:
            return
        self.probes = [probe for probe in self.probes if probe is not call]
        if self.state == "closed":
            self.streak = {"failure": self.streak + 1, "success": 0, "neutral": self.streak}[outcome]
            if self.streak == 3:
                self.enter("open", now + 10)
        elif outcome == "success":
            self.state, self.successes = "half_open", self.successes + 1
            if self.successes == 2:
                self.enter("closed")
        elif outcome == "failure" and call.awaited:
            self.enter("open", now + 10)


class BreakerMachine(RuleBasedStateMachine):
    calls: Bundle[Any] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(0.0)
        self.breaker = CircuitBreaker("callee", POLICY, clock=self.clock, random=seeded())
        self.model = BreakerModel()

    @rule(target=calls)
    def begin(self) -> Any:
        expected = self.model.admit(self.clock.monotonic())
        state = self.breaker.state
        try:
            admitted = state if state.name == "closed" else self.breaker.acquire()
        except CircuitOpenError as error:
            refused = (expected, (error.retry_after or 0) > 0)
            assert refused == (None, True)  # the breaker refuses exactly when the model refuses
            return multiple()
        assert expected is not None
        return admitted, expected

    @rule(call=calls, outcome=st.sampled_from(["success", "failure", "neutral"]))
    def end(self, call: Any, outcome: str) -> None:
        admitted, modelled = call
        if not self.ends_once(call):
            return
        self.model.end(modelled, outcome, self.clock.monotonic())
        if outcome == "success":
            self.breaker.success(admitted)
        elif outcome == "failure":
            self.breaker.failure(admitted, PERMANENT)
        else:
            self.breaker.release(admitted)

    def ends_once(self, call: Any) -> bool:
        ended = self.__dict__.setdefault("ended", [])
        if any(call is before for before in ended):
            return False
        ended.append(call)
        return True

    @rule(seconds=st.sampled_from([1, 5, 10, 20, 100]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def same_state(self) -> None:
        assert self.breaker.current() == self.model.shown(self.clock.monotonic())


class LimiterMachine(RuleBasedStateMachine):
    """Compares each bucket with a model that counts tokens, and the window with a model that logs admissions."""

    keys = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.time = Fraction(0)
        self.buckets = KeyedTokenBucket(4, 8, 2)  # room for two of the three keys
        self.tokens = dict.fromkeys(self.keys, Fraction(8))
        self.window = SlidingWindow(WindowShape(5, 64.0))
        self.log: list[Fraction] = []
        self.read_clock(0)

    @rule(ticks=st.integers(0, 40))
    def pass_time(self, ticks: int) -> None:
        self.clock += Fraction(ticks, 8)

    def read_clock(self, stale: int) -> float:
        """A clock reading that may be old. A limiter must never use a time before the newest reading."""
        reading = self.clock - stale
        refilled = 4 * max(reading - self.time, Fraction(0))
        self.tokens = {key: min(tokens + refilled, Fraction(8)) for key, tokens in self.tokens.items()}
        self.time = max(self.time, reading)
        self.window.take(float(reading), 6)  # exceeds the limit, so both limiters read the time and admit nothing
        self.buckets.take("a", float(reading), 9)
        return float(reading)

    @rule(key=st.sampled_from(keys), cost=st.integers(1, 8), stale=st.sampled_from([0, 0, 0, 1, 50]))
    def take(self, key: str, cost: int, stale: int) -> None:
        wait = self.buckets.take(key, self.read_clock(stale), cost)
        if wait == 0:
            assert cost <= self.tokens[key], "a key got more tokens than its bucket had"
            self.tokens[key] -= cost
        elif not self.buckets.overflowed:
            assert cost > self.tokens[key], "a key was refused although its bucket had the tokens"
            assert abs(wait - float((cost - self.tokens[key]) / 4)) < 0.001

    @rule(cost=st.integers(1, 5), stale=st.sampled_from([0, 0, 0, 1, 50]))
    def take_from_window(self, cost: int, stale: int) -> None:
        wait = self.window.take(self.read_clock(stale), cost)
        if wait == 0:
            assert sum(at > self.time - 64 for at in self.log) + cost <= 5
            self.log += [self.time] * cost
        else:  # an entry may count for longer than the window, by one sixty-fourth of it
            assert sum(at >= self.time - 65 for at in self.log) + cost > 5
            assert 0 < wait <= 64


BreakerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
LimiterMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestBreaker = BreakerMachine.TestCase
TestLimiters = LimiterMachine.TestCase
