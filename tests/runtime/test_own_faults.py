from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, Retry, Timeout
from voice_runtime import (
    AttemptTimeoutError,
    DeadlineExceededError,
    Failure,
    NoThreadError,
    Runtime,
    before_sending,
    classify,
)
from voice_runtime.clock import SYSTEM_CLOCK
from voice_runtime.redis import Connections
from voice_runtime.shared_store import LoopThread
from voice_runtime.testing import FakeClock
from voice_runtime.worker_threads import WorkerThreads

from tests.bundles import bundle, call, mount, operation

NAME = "rag-engine.context"
TIMES = 5


def loaded(directory: Path, clock: FakeClock | None = None, **policies: Any) -> Runtime:
    breaker = CircuitBreaker(consecutive_failures=TIMES)
    content = bundle(call(NAME, circuit_breaker=breaker, **policies), inbound=(operation("run"),))
    return Runtime.load(mount(directory, content), clock=clock or SYSTEM_CLOCK)


def blames_nobody(runtime: Runtime, name: str = NAME) -> bool:
    outbound = runtime.outbound(name)
    assert outbound.breaker is not None
    statistics = outbound.statistics
    return (outbound.breaker.current(), outbound.breaker.failed, statistics.failed, statistics.retries) == (
        ("closed", 0, 0, 0)
    )


async def nothing() -> None:
    return None


async def test_a_call_after_the_deadline_does_not_count_against_the_callee(tmp_path: Path, clock: FakeClock) -> None:
    runtime = loaded(tmp_path, clock)
    async with runtime.request("run", remaining=1.0):
        clock.advance(1.5)
        for _ in range(2 * TIMES):
            with pytest.raises(DeadlineExceededError) as late:
                await runtime.call(NAME, nothing)
            assert late.value.attempts == 0
            assert f"{NAME}: a fault of this process, not of the callee" in late.value.__notes__
    assert blames_nobody(runtime)
    assert runtime.outbound(NAME).statistics.ignored == 2 * TIMES


async def test_a_deadline_that_passes_while_the_callee_works_counts_against_the_callee(
    tmp_path: Path, clock: FakeClock
) -> None:
    runtime = loaded(tmp_path, clock, timeout=Timeout(attempt=Duration("5s"), overall=Duration("5s")))
    for _ in range(TIMES):
        with pytest.raises(DeadlineExceededError):
            async with runtime.request("run", remaining=1.0):
                await runtime.call(NAME, asyncio.sleep, 60)
    assert not blames_nobody(runtime)


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "takes too long"])
async def test_an_error_before_sending_is_not_retried_and_does_not_count_against_the_callee(
    tmp_path: Path, clock: FakeClock, *, fails: bool
) -> None:
    runtime = loaded(tmp_path, clock, retry=Retry(conditions=("unavailable", "attempt_timeout")))

    async def pooled() -> None:
        with before_sending():
            if fails:
                raise ConnectionError("the pool is exhausted")
            await asyncio.sleep(60)

    for _ in range(2 * TIMES):
        with pytest.raises(ConnectionError if fails else AttemptTimeoutError) as failed:
            await runtime.call(NAME, pooled)
        assert f"{NAME}: a fault of this process, not of the callee" in failed.value.__notes__
        assert fails or getattr(failed.value, "attempts", None) == 0
    assert blames_nobody(runtime)


async def test_an_error_after_sending_counts_against_the_callee(tmp_path: Path, clock: FakeClock) -> None:
    runtime = loaded(tmp_path, clock)

    async def sent() -> None:
        with before_sending():
            await asyncio.sleep(0.1)
        raise ConnectionResetError("after it was sent")

    for _ in range(TIMES):
        with pytest.raises(ConnectionResetError):
            await runtime.call(NAME, sent)
    assert not blames_nobody(runtime)


async def test_before_sending_has_no_effect_outside_an_attempt() -> None:
    with pytest.raises(ValueError, match="x"), before_sending():
        raise ValueError("x")


def test_a_synchronous_wait_for_a_connection_does_not_count_against_the_callee(tmp_path: Path) -> None:
    runtime = loaded(tmp_path, timeout=Timeout(attempt=Duration("500ms"), overall=Duration("1m")))
    free = threading.Event()

    def pooled() -> None:
        with before_sending():
            free.wait(60)

    for _ in range(TIMES):
        with pytest.raises(AttemptTimeoutError):
            runtime.call_sync(NAME, pooled)
    free.set()
    assert blames_nobody(runtime)


def test_a_failed_thread_start_does_not_count_against_the_callee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = loaded(tmp_path)
    workers = WorkerThreads(1)
    runtime.outbound(NAME).workers = workers
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", lambda _: _raise(RuntimeError("can't start new thread")))
        for _ in range(2 * TIMES):
            with pytest.raises(NoThreadError, match="no thread could be started") as refused:
                runtime.call_sync(NAME, threading.get_ident)
            assert isinstance(refused.value.__cause__, RuntimeError)
    assert workers.threads == 0
    assert blames_nobody(runtime)
    assert runtime.call_sync(NAME, threading.get_ident) != threading.get_ident()


def test_a_loop_thread_that_cannot_start_is_started_by_the_next_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = LoopThread()
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", lambda _: _raise(RuntimeError("can't start new thread")))
        for _ in range(2):
            with pytest.raises(NoThreadError, match="no thread could be started"):
                thread.run(nothing())
    assert thread.run(asyncio.sleep(0, "answer")) == "answer"


def _raise(error: Exception) -> None:
    raise error


class Busy:
    """A connection of redis-py that never answers."""

    is_connected = True
    _reader = SimpleNamespace(at_eof=lambda: False)

    async def send_packed_command(self, _: bytes) -> None: ...

    async def read_response(self) -> None:
        await asyncio.sleep(3600)

    async def disconnect(self, *, nowait: bool) -> None: ...

    @property
    def make_connection(self) -> Any:
        return Busy


async def test_waiting_for_a_connection_to_redis_does_not_count_against_the_callee(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_runtime.redis.CONNECTIONS", 1)
    runtime = loaded(tmp_path, clock)
    connections = Connections(Busy())  # type: ignore[arg-type]  # it has every method that is called
    held = asyncio.create_task(connections.execute("BLPOP", "key", 0))
    await asyncio.sleep(0)
    for _ in range(2 * TIMES):
        with pytest.raises(AttemptTimeoutError):
            await runtime.call(NAME, connections.execute, "GET", "key")
    assert blames_nobody(runtime)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    with pytest.raises(AttemptTimeoutError):  # this command was sent, and no answer came
        await runtime.call(NAME, connections.execute, "GET", "key")
    assert not blames_nobody(runtime)


def test_a_deadline_error_without_attempts_does_not_count_against_the_callee() -> None:
    assert classify(DeadlineExceededError("callee")) == Failure(blames_callee=False)
    assert classify(DeadlineExceededError("callee", attempts=1)) == Failure()
