from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import json
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import CircuitBreaker as Policy
from voice_policies import Duration, InvalidInputError, Ratio
from voice_runtime import (
    AttemptTimeoutError,
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitOpenError,
    Outbound,
    Runtime,
    Timeout,
)
from voice_runtime.events import Events
from voice_runtime.outcome import PERMANENT, Failure
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount
from tests.driver import Recorder, seeded, settle

FAILURE = PERMANENT


class NotFoundError(Exception):
    """The callee works, and answers that the thing does not exist."""


def neutral_not_found(error: Exception) -> Failure | None:
    return None if isinstance(error, NotFoundError) else PERMANENT


def breaker(clock: FakeClock, policy: Policy | None = None, recorder: Recorder | None = None) -> CircuitBreaker:
    return CircuitBreaker(
        "callee",
        policy or Policy(),
        clock=clock,
        random=seeded(7),
        events=Events([recorder] if recorder else []),
        classify=neutral_not_found,
    )


def opened(clock: FakeClock, policy: Policy | None = None, recorder: Recorder | None = None) -> CircuitBreaker:
    tripped = breaker(clock, policy, recorder)
    for _ in range(5):
        tripped.failure(tripped.state, FAILURE)
    assert tripped.current() == "open"
    return tripped


def half_opened(clock: FakeClock, policy: Policy | None = None, recorder: Recorder | None = None) -> CircuitBreaker:
    tripped = opened(clock, policy, recorder)
    clock.advance(120)
    assert tripped.current() == "half_open"
    return tripped


async def succeed() -> str:
    return "ok"


async def fail() -> None:
    raise OSError("callee is down")


@pytest.mark.parametrize("alone", [True, False], ids=["breaker", "pipeline"])
async def test_b1_a_half_open_breaker_admits_no_more_tasks_than_half_open_max_requests(
    clock: FakeClock, *, alone: bool
) -> None:
    tripped = opened(clock)
    shell = tripped if alone else Outbound("callee", breaker=tripped, attempt_timeout=9.0, clock=clock)
    clock.advance(120)
    release, running, most = asyncio.Event(), 0, 0

    async def probe() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    tasks = [asyncio.create_task(shell.call(probe)) for _ in range(1000)]
    await settle()
    refused = [task.exception() for task in tasks if task.done()]
    assert most == 3
    assert len(refused) == 997
    assert all(isinstance(error, CircuitOpenError) and error.retry_after > 0 for error in refused)  # type: ignore[operator]
    release.set()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_b1_a_half_open_breaker_admits_no_more_threads_than_half_open_max_requests() -> None:
    clock = FakeClock()
    for _ in range(50):
        tripped, start = half_opened(clock), threading.Barrier(16)
        admitted: list[Any] = []

        def probe(tripped: CircuitBreaker, start: threading.Barrier, admitted: list[Any]) -> None:
            start.wait(5)
            with contextlib.suppress(CircuitOpenError):
                admitted.append(tripped.acquire())

        threads = [threading.Thread(target=probe, args=(tripped, start, admitted)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(admitted) == 3


async def test_b2_simultaneous_calls_make_the_breaker_half_open_once(clock: FakeClock) -> None:
    recorder = Recorder()
    tripped = opened(clock, recorder=recorder)
    clock.advance(120)
    await asyncio.gather(*(tripped.call(succeed) for _ in range(100)), return_exceptions=True)
    moves = [(event.before, event.after) for event in recorder.of("transition")]
    assert moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


async def test_b3_a_cancelled_probe_frees_its_place_in_the_round(clock: FakeClock) -> None:
    tripped = half_opened(clock)
    for _ in range(10):
        probe = asyncio.create_task(tripped.call(asyncio.sleep, 10))
        await settle()
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        assert tripped.current() == "half_open"
    assert await tripped.call(succeed) == "ok"


async def test_b4_an_error_that_the_classifier_ignores_is_neutral_in_closed_and_half_open(clock: FakeClock) -> None:
    async def missing() -> None:
        raise NotFoundError

    closed = breaker(clock)
    for number in range(20):
        with pytest.raises(NotFoundError if number % 2 else OSError):
            await closed.call(missing if number % 2 else fail)
        if number == 7:
            assert closed.current() == "closed"  # four failures; the ignored errors between them did not count
        if number == 8:
            break
    assert closed.current() == "open"  # the ignored errors did not reset the streak, either

    probed = half_opened(clock)
    for _ in range(10):
        with pytest.raises(NotFoundError):
            await probed.call(missing)
    assert probed.current() == "half_open"
    assert await probed.call(succeed) == "ok"


async def test_b5_a_probe_that_an_inner_policy_refuses_frees_its_place_in_the_round(clock: FakeClock) -> None:
    tripped = half_opened(clock)

    async def refused() -> None:
        raise BulkheadFullError("inner")

    pipeline = Outbound("outer", breaker=tripped, clock=clock)
    for _ in range(10):
        with pytest.raises(BulkheadFullError):
            await pipeline.call(refused)
    assert tripped.current() == "half_open"
    assert await pipeline.call(succeed) == "ok"


async def test_b6_hanging_probes_open_the_breaker_after_half_open_max_duration(clock: FakeClock) -> None:
    tripped = half_opened(clock, Policy(half_open_max_requests=2, success_threshold=1))
    stuck = [asyncio.create_task(tripped.call(asyncio.sleep, 10_000)) for _ in range(2)]
    await settle()
    clock.advance(29)
    with pytest.raises(CircuitOpenError):
        await tripped.call(succeed)
    assert tripped.current() == "half_open"
    clock.advance(2)
    with pytest.raises(CircuitOpenError):
        await tripped.call(succeed)
    assert tripped.current() == "open"
    clock.advance(120)
    assert await tripped.call(succeed) == "ok"  # the hanging probes no longer take places in the round
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


def test_b7_a_call_from_before_the_opening_cannot_close_the_breaker(clock: FakeClock) -> None:
    slow = breaker(clock)
    before = slow.state
    for _ in range(5):
        slow.failure(slow.state, FAILURE)
    slow.success(before)
    assert slow.current() == "open"
    clock.advance(120)
    assert slow.current() == "half_open"
    for _ in range(3):
        slow.success(before)
    assert slow.current() == "half_open"


def test_b8_failures_of_an_older_generation_do_not_open_a_recovered_breaker(clock: FakeClock) -> None:
    recovered = half_opened(clock)
    old = breaker(clock).state
    for _ in range(2):
        recovered.success(recovered.acquire())
    assert recovered.current() == "closed"
    for _ in range(20):
        recovered.failure(old, FAILURE)
    assert recovered.current() == "closed"


def test_b8_failures_of_calls_from_before_an_outage_do_not_count_after_the_outage(clock: FakeClock) -> None:
    recovering = breaker(clock)
    before = recovering.state
    for _ in range(5):
        recovering.failure(before, FAILURE)
    clock.advance(120)
    for _ in range(2):
        recovering.success(recovering.acquire())
    for _ in range(20):
        recovering.failure(before, FAILURE)
    assert recovering.current() == "closed"


def test_b9_a_probe_of_a_failed_round_cannot_close_the_breaker(clock: FakeClock) -> None:
    tripped = half_opened(clock, Policy(success_threshold=1))
    first, second = tripped.acquire(), tripped.acquire()
    tripped.failure(first, FAILURE)
    tripped.success(second)
    assert tripped.current() == "open"
    clock.advance(200)
    assert tripped.current() == "half_open"
    tripped.success(second)
    assert tripped.current() == "half_open"


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("shell", ["breaker", "pipeline", "sync"])
def test_b10_errors_that_end_a_task_or_process_are_neutral_and_pass_unchanged(
    clock: FakeClock, kind: type[BaseException], shell: str
) -> None:
    tripped = breaker(clock, Policy(consecutive_failures=1))
    pipeline = Outbound("callee", breaker=tripped, clock=clock)
    raised = kind()

    def end() -> Any:
        raise raised

    async def end_async() -> None:
        end()

    def drive() -> None:
        if shell == "sync":
            pipeline.call_sync(end)
        elif shell == "breaker":
            tripped.call(end_async).send(None)
        else:
            asyncio.run(pipeline.call(end_async))

    with pytest.raises(kind):
        drive()
    assert tripped.current() == "closed"
    assert tripped.failed == 0


async def test_b11_a_cancellation_does_not_reset_the_streak(clock: FakeClock) -> None:
    counted = breaker(clock)
    for _ in range(4):
        with pytest.raises(OSError, match="down"):
            await counted.call(fail)
    cancelled = asyncio.create_task(counted.call(asyncio.sleep, 10))
    await settle()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    with pytest.raises(OSError, match="down"):
        await counted.call(fail)
    assert counted.current() == "open"


async def test_b12_an_enclosing_timeout_counts_as_failure_and_the_callers_cancellation_does_not(
    clock: FakeClock,
) -> None:
    counted = breaker(clock)
    pipeline = Outbound("callee", breaker=counted, attempt_timeout=5.0, clock=clock)
    for _ in range(5):
        cancelled = asyncio.create_task(pipeline.call(asyncio.sleep, 10))
        await settle()
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
    assert (counted.current(), counted.failed) == ("closed", 0)

    async def hang_in_a_child_task() -> None:
        await asyncio.gather(pipeline.call(asyncio.sleep, 10))  # a child task copies the context

    for _ in range(5):
        with pytest.raises(AttemptTimeoutError):
            await Timeout("outer", 0.5, clock).call(hang_in_a_child_task)
    assert counted.current() == "open"


def test_b13_a_jump_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CircuitBreaker("callee", Policy())
    for _ in range(5):
        real.failure(real.state, FAILURE)
    for step in (3600, -3600):
        wall = time.time() + step
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert real.current() == "open"
        with pytest.raises(CircuitOpenError) as refused:
            real.acquire()
        # A break of 60 s with at most 10 % jitter. The test itself may take 10 s.
        assert 50 < (refused.value.retry_after or 0) <= 66


def test_b14_the_breaker_closes_after_exactly_success_threshold_successes(clock: FakeClock) -> None:
    tripped = half_opened(clock, Policy(half_open_max_requests=5, success_threshold=4))
    for number in range(4):
        assert tripped.current() == "half_open", number
        tripped.success(tripped.acquire())
    assert tripped.current() == "closed"


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("success_threshold", 4, "can never be reached with half_open_max_requests 3"),
        ("success_threshold", 0, "greater than or equal to 1"),
        ("success_threshold", -1, "greater than or equal to 1"),
        ("break_duration_multiplier", "NaN", "number"),
        ("break_duration", "0s", "must be above 0s"),
        ("break_duration", "-1s", "expected a duration"),
        ("failure_ratio", "0%", "must be above 0%"),
    ],
)
def test_b14_unreachable_and_impossible_thresholds_are_refused_at_load(
    tmp_path: Any, field: str, value: object, accepted: str
) -> None:
    document = bundle(call(circuit_breaker=Policy())).to_document()
    document["outbound"][0]["circuit_breaker"][field] = value
    with pytest.raises(InvalidInputError) as refused:
        Runtime.load(mount(tmp_path, json.dumps(document)))
    assert "outbound[0].circuit_breaker" in str(refused.value)
    assert accepted in str(refused.value)


async def test_b15_each_rejection_is_a_new_error_and_leaks_no_memory(clock: FakeClock) -> None:
    pipeline = Outbound("callee", breaker=opened(clock), attempt_timeout=1.0, clock=clock)

    async def reject() -> CircuitOpenError:
        with pytest.raises(CircuitOpenError) as refused:
            await pipeline.call(succeed)
        return refused.value

    first, second = await reject(), await reject()
    assert first is not second
    frames, traceback = 0, second.__traceback__
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    assert frames < 10
    del first, second, traceback

    async def reject_many(count: int) -> int:
        for _ in range(count):
            with contextlib.suppress(CircuitOpenError):
                await pipeline.call(succeed)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await reject_many(1_000)
        after = await reject_many(10_000)
    finally:
        tracemalloc.stop()
    assert after - before < 10_000  # less than a byte for each rejection


def test_b16_no_lock_is_held_during_the_call() -> None:
    shared = CircuitBreaker("callee", Policy())
    inside = threading.Barrier(5, timeout=60)  # passes only if five threads are inside at the same time
    threads = [threading.Thread(target=shared.call_sync, args=(inside.wait,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not inside.broken
    assert shared.successful == 5


class FailingCallable:
    async def __call__(self) -> None:
        await fail()

    async def method(self) -> None:
        await fail()


@pytest.mark.parametrize(
    "fn",
    [fail, functools.partial(fail), FailingCallable(), FailingCallable().method, lambda: fail()],  # noqa: PLW0108  # a lambda is one of the tested kinds
    ids=["coroutine", "partial", "object", "method", "lambda"],
)
async def test_b17_the_failure_of_an_awaitable_is_never_counted_as_a_success(clock: FakeClock, fn: Any) -> None:
    counted = breaker(clock)
    pipeline = Outbound("callee", breaker=counted, clock=clock)
    with pytest.raises(OSError, match="down"):
        await pipeline.call(fn)
    with pytest.raises(TypeError, match="coroutine function"):
        pipeline.call_sync(fn)
    assert (counted.successful, counted.failed, counted.ignored) == (0, 1, 1)


async def test_b17_call_refuses_only_an_asynchronous_generator_and_protect_accepts_every_kind(
    clock: FakeClock, tmp_path: Any
) -> None:
    async def messages() -> AsyncIterator[int]:
        yield 1

    def plain(number: int) -> int:
        return number + 1

    counted = breaker(clock)
    pipeline = Outbound("callee", breaker=counted, clock=clock)
    with pytest.raises(TypeError, match="stream"):
        await pipeline.call(messages)  # type: ignore[arg-type]
    assert await pipeline.call(plain, 1) == 2  # type: ignore[arg-type]

    runtime = Runtime.load(mount(tmp_path, bundle(call("callee"))), clock=clock)
    assert [message async for message in runtime.protect("callee")(messages)()] == [1]
    assert await runtime.protect("callee")(functools.partial(succeed))() == "ok"
    assert runtime.protect("callee")(plain)(1) == 2


async def test_b18_an_event_listener_that_raises_does_not_affect_the_call(clock: FakeClock) -> None:
    class Broken:
        def on_event(self, _: object) -> None:
            raise RuntimeError("broken listener")

    events = Events([Broken(), recorder := Recorder()])
    shaken = CircuitBreaker("callee", Policy(), clock=clock, events=events)
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            await shaken.call(fail)
    assert shaken.current() == "open"
    assert events.listener_errors == 1
    assert len(recorder.events) == 1


WINDOWED = Policy(
    consecutive_failures=None,
    failure_ratio=Ratio("50%"),
    slow_call_ratio=Ratio("50%"),
    slow_call_duration=Duration("1s"),
    sampling_duration=Duration("10s"),
    minimum_throughput=10,
)


def test_b19_a_failure_ratio_opens_the_breaker_only_after_minimum_throughput_calls(clock: FakeClock) -> None:
    windowed = breaker(clock, WINDOWED)
    for number in range(9):
        windowed.failure(windowed.state, FAILURE)
        assert windowed.current() == "closed", number
    windowed.failure(windowed.state, FAILURE)
    assert windowed.current() == "open"


@pytest.mark.parametrize("idle", [11.1, 1_000_000.0], ids=["just longer than the window", "for days"])
def test_b19_old_failures_leave_the_window_even_if_no_call_arrives(clock: FakeClock, idle: float) -> None:
    windowed = breaker(clock, WINDOWED)
    for _ in range(9):
        windowed.failure(windowed.state, FAILURE)
    clock.advance(idle)
    windowed.failure(windowed.state, FAILURE)
    assert windowed.current() == "closed"


def test_b19_a_slow_failure_counts_once_as_failure_and_once_as_slow(clock: FakeClock) -> None:
    windowed = breaker(clock, WINDOWED)
    for _ in range(3):
        windowed.failure(windowed.state, FAILURE, elapsed=2)
    for _ in range(6):
        windowed.success(windowed.state, clock.monotonic(), 0.1)
    windowed.failure(windowed.state, FAILURE, elapsed=0.1)
    assert (windowed.failed, windowed.slow, windowed.successful) == (4, 3, 6)
    assert windowed.current() == "closed"  # 40 % of ten calls failed and 30 % were slow, both below 50 %
    for _ in range(2):
        windowed.failure(windowed.state, FAILURE, elapsed=0.1)
    assert windowed.current() == "open"


async def test_b20_slow_successes_open_the_breaker(clock: FakeClock) -> None:
    windowed = breaker(clock, WINDOWED)
    pipeline = Outbound("callee", breaker=windowed, attempt_timeout=5.0, clock=clock)
    await asyncio.gather(*(pipeline.call(asyncio.sleep, 1.5) for _ in range(10)))
    assert (windowed.slow, windowed.failed, windowed.current()) == (10, 0, "open")


async def test_b20_time_in_the_bulkheads_queue_does_not_make_a_call_slow(clock: FakeClock) -> None:
    windowed = breaker(clock, WINDOWED)
    narrow = Bulkhead("callee", BulkheadPolicy(max_concurrent=1, max_queue=100, queue_timeout=Duration("1m")))
    pipeline = Outbound("callee", breaker=windowed, bulkhead=narrow, attempt_timeout=5.0, clock=clock)
    await asyncio.gather(*(pipeline.call(asyncio.sleep, 0.5) for _ in range(20)))
    assert (windowed.slow, windowed.current()) == (0, "closed")


def test_b21_each_target_has_its_own_breaker_and_the_number_of_breakers_is_bounded(
    clock: FakeClock, tmp_path: Any
) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(call("llm.generate", circuit_breaker=Policy()))), clock=clock)

    def breaker_of(target: str) -> CircuitBreaker:
        found = runtime.outbound("llm.generate", target).breaker
        assert found is not None
        return found

    down = breaker_of("first")
    for _ in range(5):
        down.failure(down.state, FAILURE)
    assert down.current() == "open"
    assert breaker_of("second").current() == "closed"
    assert runtime.outbound("llm.generate").breaker is not down
    for number in range(2_000):
        breaker_of(f"target-{number}")
    assert len(runtime.targets) == 256
    assert breaker_of("first") is down  # a target with an open breaker is not dropped before an idle one
    for number in range(2_000 - 256, 2_000):
        breaker_of(f"target-{number}").open()
    assert breaker_of("new") is breaker_of("new")  # it is kept although every other breaker is open


def _open_times(seed: int) -> list[float]:
    clock, recorder = FakeClock(), Recorder()
    tripped = CircuitBreaker("callee", Policy(), clock=clock, random=seeded(seed), events=Events([recorder]))
    for _ in range(5):
        tripped.failure(tripped.state, FAILURE)
    for _ in range(7):
        clock.advance(1000)
        tripped.failure(tripped.acquire(), FAILURE)
    clock.advance(1000)
    for _ in range(2):
        tripped.success(tripped.acquire())
    for _ in range(5):
        tripped.failure(tripped.state, FAILURE)
    return [event.delay for event in recorder.of("transition") if event.after == "open"]


def test_b22_the_break_grows_with_each_failed_round_until_the_breaker_closes() -> None:
    times = _open_times(1)
    for number, duration in enumerate(times[:-1]):
        shortest = min(60 * 1.5**number, 300)
        assert shortest <= duration <= shortest * 1.1, number
    assert 60 <= times[-1] <= 66


def test_b22_replicas_do_not_probe_at_the_same_time() -> None:
    assert len({_open_times(seed)[0] for seed in range(20)}) == 20


async def test_b23_a_stream_succeeds_at_its_end_and_closing_it_early_is_neutral(clock: FakeClock) -> None:
    async def messages(count: int, *, broken: bool = False) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        if broken:
            raise OSError("connection lost")

    counted = breaker(clock)
    pipeline = Outbound("callee", breaker=counted, attempt_timeout=1.0, overall_timeout=9.0, clock=clock)
    stream = pipeline.stream(messages, 3)
    assert await anext(stream) == 0
    assert counted.successful == 0
    assert [message async for message in stream] == [1, 2]
    assert counted.successful == 1

    abandoned: Any = pipeline.stream(messages, 3)
    await anext(abandoned)
    await abandoned.aclose()
    assert (counted.successful, counted.failed, counted.ignored) == (1, 0, 1)

    with pytest.raises(OSError, match="lost"):
        _ = [message async for message in pipeline.stream(messages, 2, broken=True)]
    assert counted.failed == 1
