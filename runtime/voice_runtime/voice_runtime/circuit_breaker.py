"""Circuit breaker (layer L3): what is known to be down is not called.

    Closed ──trips──▶ Open ──break_duration──▶ HalfOpen ──success_threshold──▶ Closed
                       ▲                          │
                       └── a failed probe, or no decision in half_open_max_duration ──┘
    by hand: ForcedOpen, Disabled

A state object is its own generation: a result counts only for the state that admitted its call, so whatever finishes
late changes nothing. Successes while closed take no lock; failures, probes and transitions do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from threading import Lock
from typing import ParamSpec, TypeVar

from voice_policies import CircuitBreaker as Policy

from voice_runtime.breaker_state import Closed, Disabled, ForcedOpen, HalfOpen, Open, State, StateName
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import CircuitOpenError
from voice_runtime.events import Event, Events
from voice_runtime.outcome import Classify, Failure, classify

P = ParamSpec("P")
T = TypeVar("T")


class CircuitBreaker:
    """The state of one breaker. Alone it wraps a call (`call`, `call_sync`); in a pipeline the pipeline drives it."""

    __slots__ = (
        "_classify",
        "_clock",
        "_events",
        "_half_open_rounds",
        "_lock",
        "_random",
        "failed",
        "ignored",
        "not_permitted",
        "now",
        "policy",
        "slow",
        "slow_call_duration",
        "state",
        "successful",
        "target",
        "timed",
    )

    def __init__(  # noqa: PLR0913  # what a process shares: clock, randomness, events
        self,
        target: str,
        policy: Policy,
        *,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
        events: Events | None = None,
        classify: Classify = classify,
    ) -> None:
        self.target = target
        self.now = clock.monotonic
        self._random = random or Random()  # noqa: S311  # jitter, not a secret
        self._events = events or Events()
        self._classify = classify
        self._lock = Lock()
        self._half_open_rounds = 0
        self.successful = self.failed = self.slow = self.ignored = self.not_permitted = 0
        self._configure(policy)
        self.state: State = self._closed()

    def reconfigure(self, policy: Policy) -> None:
        """Go on under a new policy. The state stays; a window of another length starts empty."""
        with self._lock:
            resampled = self._sampling_duration(policy) != self._sampling_duration(self.policy)
            self._configure(policy)
            if resampled and isinstance(self.state, Closed):
                streak, self.state = self.state.streak, self._closed()
                self.state.streak = streak

    def _configure(self, policy: Policy) -> None:
        self.policy = policy
        self.slow_call_duration = policy.slow_call_duration.seconds if policy.slow_call_duration else NEVER
        self.timed = self._sampling_duration(policy) is not None

    @staticmethod
    def _sampling_duration(policy: Policy) -> float | None:
        windowed = policy.failure_ratio is not None or policy.slow_call_ratio is not None
        return policy.sampling_duration.seconds if windowed else None

    def _closed(self) -> Closed:
        return Closed(self._sampling_duration(self.policy), self.now())

    # --- admission

    def acquire(self) -> State:
        """Admit a call: the state to report its result to. Raises `CircuitOpenError`.

        Callers look first: `state = breaker.state`, and only where that is not `Closed`, `state = breaker.acquire()`.
        """
        open_state = self.state
        if type(open_state) is Open and (wait := open_state.until - self.now()) > 0:
            self.not_permitted += 1  # the common refusal needs no lock
            raise CircuitOpenError(self.target, wait)
        with self._lock:
            now = self.now()
            event = self._move_on(now)
            state = self.state
            if isinstance(state, HalfOpen) and state.permits:
                state.permits -= 1
                refused_for = None
            else:
                refused_for = self._refused_for(state, now)
                self.not_permitted += refused_for is not None
        self._publish(event)
        if refused_for is None:
            return state
        raise CircuitOpenError(self.target, refused_for if refused_for < NEVER else None)

    def _move_on(self, now: float) -> Event | None:
        """Transitions that time alone causes."""
        state = self.state
        if isinstance(state, Open) and now >= state.until:
            half_open_max_duration = self.policy.half_open_max_duration.seconds
            return self._enter(HalfOpen(self.policy.half_open_max_requests, now + half_open_max_duration))
        if isinstance(state, HalfOpen) and now >= state.until:
            return self._open(now)
        return None

    @staticmethod
    def _refused_for(state: State, now: float) -> float | None:
        """Seconds until the state may admit again; `None` if it admits."""
        if isinstance(state, Open | HalfOpen):
            return max(state.until - now, 0.001)
        return NEVER if isinstance(state, ForcedOpen) else None

    # --- results

    def success(self, state: State, now: float = 0, elapsed: float = 0) -> None:
        """A call that `state` admitted succeeded. The times are needed where `timed` is true."""
        self.successful += 1
        if type(state) is Closed:
            if state.streak:
                state.streak = 0
            calls = state.calls
            if calls is not None:
                if now >= calls.end:
                    calls.rotate(now)
                calls.count += 1
                if elapsed >= self.slow_call_duration:
                    self._slow_or_failed(state, now, failed=False, slow=True)
        elif type(state) is HalfOpen:
            self._probed(state, failed=elapsed >= self.slow_call_duration)

    def failure(self, state: State, failure: Failure, elapsed: float = 0) -> None:
        """A call that `state` admitted failed. RESOURCE_EXHAUSTED is neutral unless the policy counts it."""
        if failure.condition == "resource_exhausted" and not self.policy.count_resource_exhausted:
            self.release(state)
            return
        self.failed += 1
        if isinstance(state, Closed):
            if state.calls is not None:
                state.calls.add(self.now())
            self._slow_or_failed(state, self.now(), failed=True, slow=elapsed >= self.slow_call_duration)
        else:
            self._probed(state, failed=True)

    def release(self, state: State) -> None:
        """A call that `state` admitted ended without saying anything about the callee.

        It was cancelled, refused further in, or failed in a way that is the caller's own.
        """
        self.ignored += 1
        if isinstance(state, HalfOpen):
            with self._lock:
                state.permits += 1

    def _slow_or_failed(self, state: Closed, now: float, *, failed: bool, slow: bool) -> None:
        event = None
        with self._lock:
            self.slow += slow
            if failed:
                state.streak += 1
            if state.failures is not None and failed:
                state.failures.add(now)
            if state.slow_calls is not None and slow:
                state.slow_calls.add(now)
            if self.state is state and self._trips(state, now):
                event = self._open(now)
        self._publish(event)

    def _trips(self, state: Closed, now: float) -> bool:
        policy = self.policy
        if policy.consecutive_failures is not None and state.streak >= policy.consecutive_failures:
            return True
        if state.calls is None or state.failures is None or state.slow_calls is None:
            return False
        calls = state.calls.total(now)
        return calls >= policy.minimum_throughput and (
            (policy.failure_ratio is not None and state.failures.total(now) >= policy.failure_ratio * calls)
            or (policy.slow_call_ratio is not None and state.slow_calls.total(now) >= policy.slow_call_ratio * calls)
        )

    def _probed(self, state: State, *, failed: bool) -> None:
        event = None
        with self._lock:
            now = self.now()
            if self.state is state and isinstance(state, HalfOpen):
                if failed or now >= state.until:
                    event = self._open(now)
                else:
                    state.successes += 1
                    if state.successes >= self.policy.success_threshold:
                        self._half_open_rounds = 0
                        event = self._enter(self._closed())
        self._publish(event)

    # --- transitions, all under the lock

    def _open(self, now: float) -> Event:
        policy = self.policy
        if not isinstance(self.state, HalfOpen):
            self._half_open_rounds = 0
        grown = self._grown(policy.break_duration.seconds, policy.break_duration_multiplier)
        self._half_open_rounds += 1
        duration = min(grown, policy.max_break_duration.seconds) * (
            1 + policy.break_duration_jitter * self._random.random()
        )
        return self._enter(Open(now + duration), duration)

    def _grown(self, duration: float, multiplier: float) -> float:
        try:
            return duration * multiplier**self._half_open_rounds
        except OverflowError:
            return NEVER

    def _enter(self, state: State, delay: float | None = None) -> Event:
        before, self.state = self.state.name, state
        return Event("transition", "circuit_breaker", self.target, delay=delay, before=before, after=state.name)

    def _publish(self, event: Event | None) -> None:
        if event is not None:
            self._events.publish(event)

    # --- by hand

    def open(self) -> None:
        """Refuse every call until `close`."""
        self._force(ForcedOpen())

    def disable(self) -> None:
        """Admit every call and count none, until `close`."""
        self._force(Disabled())

    def close(self) -> None:
        """Close, forget what was counted, and act by the policy again."""
        self._half_open_rounds = 0
        self._force(self._closed())

    def _force(self, state: State) -> None:
        with self._lock:
            event = self._enter(state)
        self._publish(event)

    def current(self) -> StateName:
        """The name of the state, time's effect included."""
        with self._lock:
            event = self._move_on(self.now())
            name = self.state.name
        self._publish(event)
        return name

    # --- alone

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(...)` behind this breaker alone."""
        state = self.state
        if type(state) is not Closed:
            state = self.acquire()
        started = self.now() if self.timed else 0
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            self.report(state, error, self.now() - started)
            raise
        finished = self.now() if self.timed else 0
        self.success(state, finished, finished - started)
        return result

    def call_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(...)` behind this breaker alone."""
        state = self.state
        if type(state) is not Closed:
            state = self.acquire()
        started = self.now() if self.timed else 0
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self.report(state, error, self.now() - started)
            raise
        finished = self.now() if self.timed else 0
        self.success(state, finished, finished - started)
        return result

    def report(self, state: State, error: BaseException, elapsed: float = 0) -> None:
        """A call that `state` admitted ended in `error`: a failure, or neutral."""
        failure = self._classify(error) if isinstance(error, Exception) else None
        if failure is None:
            self.release(state)
        else:
            self.failure(state, failure, elapsed)
