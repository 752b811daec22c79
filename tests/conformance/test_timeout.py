from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from typing import Any

import pytest
from voice_policies import Duration
from voice_policies import Timeout as Policy
from voice_runtime import (
    AttemptTimeoutError,
    BulkheadFullError,
    DeadlineExceededError,
    Outbound,
    Runtime,
    Timeout,
    attempt_number,
    remaining,
)
from voice_runtime.attempt import Attempt
from voice_runtime.testing import FakeClock
from voice_runtime.worker_threads import WorkerThreads

from tests.bundles import bundle, call, mount, operation
from tests.driver import settle


def pipeline(clock: FakeClock, attempt: float = 1.0, overall: float = 60.0) -> Outbound:
    return Outbound("callee", attempt_timeout=attempt, overall_timeout=overall, clock=clock)


async def test_t1_a_timeout_raises_the_runtimes_timeout_error(clock: FakeClock) -> None:
    begun = clock.monotonic()
    with pytest.raises(AttemptTimeoutError) as timed_out:
        await pipeline(clock).call(asyncio.sleep, 10)
    assert isinstance(timed_out.value, TimeoutError)
    assert clock.monotonic() - begun == pytest.approx(1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("overall", [60.0, 1.0], ids=["the timeout of the attempt", "the timeout of the call"])
async def test_t1_a_cancellation_in_the_same_loop_turn_as_the_timeout_stays_a_cancellation(
    clock: FakeClock, overall: float
) -> None:
    limited = pipeline(clock, 1.5 if overall == 1.0 else 1.0, overall)
    task = asyncio.create_task(limited.call(asyncio.sleep, 10))
    await settle()
    asyncio.get_running_loop().call_later(1.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_t1_timeouts_work_inside_and_outside_a_task_group(clock: FakeClock) -> None:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(10))

    with pytest.raises(AttemptTimeoutError):
        await pipeline(clock).call(group)

    async def broken() -> None:
        await asyncio.sleep(0.1)
        raise LookupError

    with pytest.raises(ExceptionGroup) as failed:  # noqa: PT012  # the group raises when its block ends
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(pipeline(clock).call(asyncio.sleep, 0.9))
            tasks.create_task(broken())
    assert other.cancelled()
    assert [type(error) for error in failed.value.exceptions] == [LookupError]


async def test_t1_a_task_that_is_being_cancelled_can_still_use_timeouts(clock: FakeClock) -> None:
    seen: list[type[BaseException]] = []

    async def clean_up() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            try:
                await pipeline(clock).call(asyncio.sleep, 10)
            except AttemptTimeoutError as error:
                seen.append(type(error))

    task = asyncio.create_task(clean_up())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [AttemptTimeoutError]


@pytest.mark.parametrize(
    ("inner", "outer", "owner"),
    [(1.0, 5.0, "inner"), (5.0, 1.0, "outer"), (1.0, 1.0, "outer")],
    ids=["the inner timeout is shorter", "the outer timeout is shorter", "equal timeouts"],
)
async def test_t2_the_error_names_the_nested_timeout_that_fired(
    clock: FakeClock, inner: float, outer: float, owner: str
) -> None:
    async def nested() -> None:
        await Timeout("inner", inner, clock).call(asyncio.sleep, 60)

    with pytest.raises(AttemptTimeoutError) as timed_out:
        await Timeout("outer", outer, clock).call(nested)
    assert timed_out.value.target == owner
    assert not isinstance(timed_out.value.__cause__, AttemptTimeoutError)


async def test_t2_an_enclosing_asyncio_timeout_raises_its_own_error(clock: FakeClock) -> None:
    limited = pipeline(clock, attempt=5.0)
    with pytest.raises(TimeoutError) as timed_out:
        async with asyncio.timeout(1):
            await limited.call(asyncio.sleep, 60)
    assert not isinstance(timed_out.value, AttemptTimeoutError)
    assert limited.statistics.timeouts == 0


async def test_t3_a_callee_that_ignores_its_cancellation_still_times_out(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "too late"
        return "never"

    with caplog.at_level(logging.WARNING), pytest.raises(AttemptTimeoutError):
        await pipeline(clock).call(stubborn)
    assert "ignored its cancellation" in caplog.text
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_t4_the_transport_and_the_calls_inside_get_the_remaining_time(tmp_path: Any) -> None:
    mounted = mount(
        tmp_path,
        bundle(
            call(timeout=Policy(attempt=Duration("10s"), overall=Duration("20s"))),
            inbound=(operation("run", deadline=Duration("5s")),),
        ),
    )
    runtime = Runtime.load(mounted)

    async def left() -> float | None:
        return remaining()

    assert remaining() is None
    assert await runtime.call("rag-engine", left) == pytest.approx(10, abs=0.2)
    async with runtime.request("run"):
        assert remaining() == pytest.approx(5, abs=0.2)
        assert await runtime.call("rag-engine", left) == pytest.approx(5, abs=0.2)
    async with runtime.request("run", remaining=0.5):  # the time until the caller's deadline
        assert await asyncio.gather(runtime.call("rag-engine", left)) == pytest.approx([0.5], abs=0.2)


async def test_t4_a_call_after_the_deadline_is_not_sent(clock: FakeClock, tmp_path: Any) -> None:
    mounted = mount(tmp_path, bundle(call(), inbound=(operation("run", deadline=Duration("5s")),)))
    runtime = Runtime.load(mounted, clock=clock)
    sent: list[int] = []

    async def send() -> None:
        sent.append(1)

    with pytest.raises(DeadlineExceededError) as late:  # noqa: PT012  # the error leaves both blocks
        async with runtime.request("run"):
            clock.advance(6)
            await runtime.call("rag-engine", send)
    assert (sent, late.value.attempts) == ([], 0)
    with pytest.raises(DeadlineExceededError):
        async with runtime.request("run", remaining=0.0):
            pass


def test_t5_a_synchronous_call_times_out_and_the_number_of_its_threads_is_bounded() -> None:
    release = threading.Event()
    workers = WorkerThreads(2)
    limited = Outbound("callee", attempt_timeout=0.05, workers=workers)
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(AttemptTimeoutError):
            limited.call_sync(release.wait, 10)
    with pytest.raises(BulkheadFullError):  # both threads are still occupied
        limited.call_sync(release.wait, 10)
    assert time.monotonic() - begun < 8
    release.set()
    deadline = time.monotonic() + 60
    while workers.idle < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert limited.call_sync(threading.get_ident) != threading.get_ident()
    assert workers.threads == 2


def test_t5_the_worker_thread_gets_the_context_and_its_errors_reach_the_caller() -> None:
    limited = Outbound("callee", attempt_timeout=5.0)
    left = limited.call_sync(remaining)
    assert left is not None
    assert 0 < left <= 5
    with pytest.raises(TimeoutError, match="its own") as own:
        limited.call_sync(_raise, TimeoutError("its own"))
    assert not isinstance(own.value, AttemptTimeoutError)


def _raise(error: Exception) -> None:
    raise error


async def test_t6_calls_that_finish_early_leave_no_timer() -> None:
    limited = Outbound("callee", attempt_timeout=60.0, overall_timeout=120.0)
    alive: list[int] = []

    async def look() -> None:
        await asyncio.sleep(0)
        if not alive:  # all hundred thousand calls are in flight
            alive.append(len(limited.timer.sweep.waiting))

    await asyncio.gather(*(limited.call(look) for _ in range(100_000)))
    gc.collect()
    assert alive == [100_000]
    assert not limited.timer.sweep.waiting
    assert not [found for found in gc.get_objects() if isinstance(found, Attempt)]
    handles = getattr(asyncio.get_running_loop(), "_scheduled")  # noqa: B009  # only this private attribute has the timers
    assert len(handles) <= 1


async def test_t6_a_call_leaves_no_reference_cycle_in_its_task() -> None:
    limited = Outbound("callee", attempt_timeout=60.0, overall_timeout=120.0)

    async def look() -> tuple[float | None, int]:
        await limited.call(asyncio.sleep, 0)
        return remaining(), attempt_number()

    gc.disable()
    try:
        task = asyncio.create_task(look())
        kept = weakref.ref(task)
        assert await task == (None, 0)
        del task
        await asyncio.sleep(0)  # the loop releases the task's last callback
        assert kept() is None
    finally:
        gc.enable()


async def test_t6_calls_whose_overall_timeout_is_the_shorter_one_leave_few_timers() -> None:
    limited = Outbound("callee", attempt_timeout=60.0, overall_timeout=50.0)
    for _ in range(10_000):
        await limited.call(asyncio.sleep, 0)
    handles = getattr(asyncio.get_running_loop(), "_scheduled")  # noqa: B009  # only this private attribute has the timers
    assert len(handles) < 500
