"""Circuit breaker: stops calls to a callee that fails.

    Closed ──trips──▶ Open ──a call, after break_duration──▶ HalfOpen ──success_threshold──▶ Closed
                      ▲  ▲                                    │    │
                      │  └───────────── a probe failed ───────┘    │
                      └─── a probe took half_open_max_duration ────┘ The round continues after the break,
                                                                     or when the slow probe succeeds.
    by hand: ForcedOpen, Disabled

A state object is its own generation: a result counts only for the state that admitted its call, so a late result of an
earlier state changes nothing.
A round of probes ends when enough probes succeed, or when one fails. A probe that takes longer than
`half_open_max_duration` only interrupts the round; its late success still counts. So the breaker also closes if
the callee answers slowly or gets few calls.
Only calls, their results and the methods `open`, `disable` and `close` change the state.
Fast successes in the closed state take no lock. Slow successes, failures, probes and transitions take the lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from threading import RLock
from typing import ParamSpec, TypeVar

from voice_policies import CircuitBreaker as Policy

from voice_runtime.breaker_state import Closed, Disabled, ForcedOpen, HalfOpen, Open, Probe, State, StateName
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import CircuitOpenError, seconds_of
from voice_runtime.events import Event, Events
from voice_runtime.outcome import Classify, Failure, classify

P = ParamSpec("P")
T = TypeVar("T")


class CircuitBreaker:
    """One circuit breaker. Use it through `call` and `call_sync`, or as a part of `Outbound`."""

    __slots__ = (
        "_classify",
        "_events",
        "_failed_rounds",
        "_lock",
        "_random",
        "_stopwatch",
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
    )

    def __init__(  # noqa: PLR0913  # clock, randomness and events are shared by the process
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
        # Reentrant: while a thread holds the lock, the garbage collector may close a dropped generator in this thread.
        # The generator then calls `release`.
        self._lock = RLock()
        self._failed_rounds = 0
        self.successful = self.failed = self.slow = self.ignored = self.not_permitted = 0
        self._configure(policy)
        self.state: State = self._closed()

    def reconfigure(self, policy: Policy) -> None:
        """Continue under a new policy. The state stays. If the policy needs other windows, these start empty."""
        with self._lock:
            resampled = self._sampling_duration(policy) != self._sampling_duration(self.policy)
            self._configure(policy)
            if resampled and isinstance(self.state, Closed):
                streak, self.state = self.state.streak, self._closed()
                self.state.streak = streak

    def _configure(self, policy: Policy) -> None:
        self.policy = policy
        self.slow_call_duration = policy.slow_call_duration.seconds if policy.slow_call_duration else NEVER
        self._stopwatch = None if self._sampling_duration(policy) is None else self.now

    @staticmethod
    def _sampling_duration(policy: Policy) -> float | None:
        windowed = policy.failure_ratio is not None or policy.slow_call_ratio is not None
        return policy.sampling_duration.seconds if windowed else None

    def _closed(self) -> Closed:
        return Closed(self._sampling_duration(self.policy), self.now())

    # --- admission

    def acquire(self) -> State:
        """Admit a call, or raise `CircuitOpenError`. Pass the returned state to the method that reports the result.

        Faster: read `breaker.state` first, and call `acquire` only if this state is not `Closed`.
        """
        if (wait := self.state.until - self.now()) > 0:
            self.not_permitted += 1  # the common refusal needs no lock
            raise CircuitOpenError(self.target, wait)
        with self._lock:
            now = self.now()
            event = self._move_on(now)
            admitted = self._admitted(now)
            if admitted is None:
                self.not_permitted += 1
                retry_after = self._retry_after(now)
        self._publish(event)
        if admitted is None:
            raise CircuitOpenError(self.target, retry_after)
        return admitted

    def _move_on(self, now: float) -> Event | None:
        """Leave an open state after its break, or a half-open state whose oldest probe takes too long."""
        state, policy = self.state, self.policy
        if isinstance(state, Open) and now >= state.until:
            return self._enter(state.round or HalfOpen())
        if isinstance(state, HalfOpen) and now >= state.oldest_probe_expires_at(policy.half_open_max_duration.seconds):
            state.abandon_probes()
            return self._open(now, "half_open_max_duration", state)
        return None

    def _admitted(self, now: float) -> State | None:
        state = self.state
        if not isinstance(state, HalfOpen):
            return None if isinstance(state, Open | ForcedOpen) else state
        if state.probes and state.successes + len(state.probes) >= self.policy.half_open_max_requests:
            return None
        probe = Probe(state, now)
        state.probes[probe] = None
        return probe

    def _retry_after(self, now: float) -> float | None:
        """Seconds until the breaker may admit a call. `None` for a breaker that was opened by hand."""
        match self.state:
            case Open(until=until):
                return max(until - now, 0.001)
            case HalfOpen() as state:
                return max(state.oldest_probe_expires_at(self.policy.half_open_max_duration.seconds) - now, 0.001)
        return None

    # --- results

    def success(self, state: State, now: float = 0, elapsed: float = 0) -> None:
        """Report the success of a call that `state` admitted. If the policy has a ratio, pass `now` and `elapsed`."""
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
        elif type(state) is Probe:
            self._probed(state, failed=elapsed >= self.slow_call_duration)

    def answered(self, state: State, elapsed: float) -> None:
        """Report the first message of a stream that `state` admitted. If the stream is a probe, the probe ends."""
        if type(state) is Probe:
            self._probed(state, failed=elapsed >= self.slow_call_duration)

    def failure(self, state: State, failure: Failure, elapsed: float = 0) -> None:
        """Report the failure of a call that `state` admitted.

        A failure that is not the callee's fault is neutral, for example a fault of this process. RESOURCE_EXHAUSTED is
        neutral unless the policy counts it.
        """
        counted = failure.condition != "resource_exhausted" or self.policy.count_resource_exhausted
        if not (counted and failure.blames_callee):
            self.release(state)
            return
        self.failed += 1
        if isinstance(state, Closed):
            if state.calls is not None:
                state.calls.add(self.now())
            self._slow_or_failed(state, self.now(), failed=True, slow=elapsed >= self.slow_call_duration)
        elif isinstance(state, Probe):
            self._probed(state, failed=True)

    def release(self, state: State) -> None:
        """Report a neutral end of a call that `state` admitted.

        A cancellation, a refusal by another policy, and a fault of the caller are neutral ends.
        """
        self.ignored += 1
        if isinstance(state, Probe):
            with self._lock:
                state.round.probes.pop(state, None)

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
            if self.state is state and (reason := self._trips(state, now)):
                event = self._open(now, reason)
        self._publish(event)

    def _trips(self, state: Closed, now: float) -> str:
        """The policy's field with the threshold that opens the breaker. Empty if no threshold is reached."""
        policy = self.policy
        if policy.consecutive_failures is not None and state.streak >= policy.consecutive_failures:
            return "consecutive_failures"
        if state.calls is None or state.failures is None or state.slow_calls is None:
            return ""
        calls = state.calls.total(now)
        if calls < policy.minimum_throughput:
            return ""
        if policy.failure_ratio is not None and state.failures.total(now) >= policy.failure_ratio * calls:
            return "failure_ratio"
        if policy.slow_call_ratio is not None and state.slow_calls.total(now) >= policy.slow_call_ratio * calls:
            return "slow_call_ratio"
        return ""

    def _probed(self, probe: Probe, *, failed: bool) -> None:
        event = None
        with self._lock:
            probe.round.probes.pop(probe, None)
            if failed and not probe.given_up and self.state is probe.round:
                event = self._open(self.now(), "failed_probe")
            elif not failed and not probe.answered and self._lasts(probe.round):
                probe.answered = True
                event = self._succeeded(probe.round)
        self._publish(event)

    def _lasts(self, round_: HalfOpen) -> bool:
        """True while the round has not ended, even if a hanging probe interrupted it."""
        state = self.state
        return state is round_ or (isinstance(state, Open) and state.round is round_)

    def _succeeded(self, round_: HalfOpen) -> Event | None:
        round_.successes += 1
        if round_.successes >= self.policy.success_threshold:
            self._failed_rounds = 0
            return self._enter(self._closed())
        return None if self.state is round_ else self._enter(round_)

    # --- transitions, all under the lock

    def _open(self, now: float, reason: str, interrupted: HalfOpen | None = None) -> Event:
        policy = self.policy
        if not isinstance(self.state, HalfOpen):
            self._failed_rounds = 0
        grown = self._grown(policy.break_duration.seconds, policy.break_duration_multiplier)
        self._failed_rounds += 1
        duration = min(grown, policy.max_break_duration.seconds) * (
            1 + policy.break_duration_jitter * self._random.random()
        )
        return self._enter(Open(now + duration, interrupted), duration, reason)

    def _grown(self, duration: float, multiplier: float) -> float:
        try:
            return duration * multiplier**self._failed_rounds
        except OverflowError:
            return NEVER

    def _enter(self, state: State, delay: float | None = None, reason: str = "") -> Event:
        before, self.state = self.state.name, state
        return Event(
            "transition", "circuit_breaker", self.target, delay=delay, before=before, after=state.name, reason=reason
        )

    def _publish(self, event: Event | None) -> None:
        if event is not None:
            self._events.publish(event)

    # --- by hand

    def open(self) -> None:
        """Refuse every call until `close`."""
        self._force(ForcedOpen())

    def disable(self) -> None:
        """Admit every call, whatever the results, until `close`."""
        self._force(Disabled())

    def close(self) -> None:
        """Close with empty windows, and follow the policy again."""
        self._force(self._closed())

    def _force(self, state: State) -> None:
        with self._lock:
            event = self._enter(state)
        self._publish(event)

    def __repr__(self) -> str:
        state = self.state
        left = f" for another {seconds_of(max(state.until - self.now(), 0.0))}" if isinstance(state, Open) else ""
        return f"<CircuitBreaker {self.target}: {state.name}{left}>"

    def current(self) -> StateName:
        """The name of the state that a call would meet now. Reading the name does not change the state."""
        with self._lock:
            state, now = self.state, self.now()
            if isinstance(state, Open) and now >= state.until:
                return "half_open"
            if isinstance(state, HalfOpen) and now >= state.oldest_probe_expires_at(
                self.policy.half_open_max_duration.seconds
            ):
                return "open"
            return state.name

    # --- alone

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(...)` under this breaker and no other policy."""
        state = self.state
        if type(state) is not Closed:
            now = self.now
            if (wait := state.until - now()) > 0.0:
                self.not_permitted += 1  # copied from `acquire`, so that the traceback has one frame less
                raise CircuitOpenError(self.target, wait)
            state = self.acquire()
        stopwatch = self._stopwatch
        started = 0.0 if stopwatch is None else stopwatch()
        try:
            # To pass on an empty dictionary takes 10 % of the call's time, so `**kwargs` is left out if it is empty.
            result = await (fn(*args, **kwargs) if kwargs else fn(*args))  # type: ignore[call-arg]  # no kwargs
        except BaseException as error:
            self.report(state, error, self.now() - started)
            raise
        if stopwatch is None:
            if type(state) is Closed and not state.streak:  # copied from `success`, to save a call
                self.successful += 1
            else:
                self.success(state)
            return result
        finished = stopwatch()
        calls = state.calls if type(state) is Closed and not state.streak else None
        if calls is not None and finished < calls.end and finished - started < self.slow_call_duration:
            self.successful += 1
            calls.count += 1
        else:
            self.success(state, finished, finished - started)
        return result

    def call_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(...)` under this breaker and no other policy."""
        state = self.state
        if type(state) is not Closed:
            now = self.now
            if (wait := state.until - now()) > 0.0:
                self.not_permitted += 1  # as above
                raise CircuitOpenError(self.target, wait)
            state = self.acquire()
        stopwatch = self._stopwatch
        started = 0.0 if stopwatch is None else stopwatch()
        try:
            result = fn(*args, **kwargs) if kwargs else fn(*args)  # type: ignore[call-arg]  # no kwargs
        except BaseException as error:
            self.report(state, error, self.now() - started)
            raise
        if stopwatch is None:
            if type(state) is Closed and not state.streak:  # as above
                self.successful += 1
            else:
                self.success(state)
            return result
        finished = stopwatch()
        calls = state.calls if type(state) is Closed and not state.streak else None
        if calls is not None and finished < calls.end and finished - started < self.slow_call_duration:
            self.successful += 1
            calls.count += 1
        else:
            self.success(state, finished, finished - started)
        return result

    def report(self, state: State, error: BaseException, elapsed: float = 0) -> None:
        """Report the `error` of a call that `state` admitted. The classifier decides if it is a failure or neutral."""
        failure = self._classify(error) if isinstance(error, Exception) else None
        if failure is None:
            self.release(state)
        else:
            self.failure(state, failure, elapsed)
