from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import CircuitBreaker as BreakerPolicy
from voice_policies import Duration, Rate, RateLimit, TokenBucket
from voice_runtime import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    DeadlineExceededError,
    Event,
    Outbound,
    PromptListener,
    Runtime,
    Timeout,
    attempt_number,
    current_request,
    remaining,
)
from voice_runtime.events import Events
from voice_runtime.testing import FakeClock
from voice_runtime.tracing import span
from voice_runtime.worker_threads import WorkerThreads

from tests.bundles import bundle, call, mount, operation
from tests.driver import settle

NAME = "rag-engine.context"
QUEUE = BulkheadPolicy(max_concurrent=1, max_queue=5, queue_timeout=Duration("5s"))


class Alarm(Exception):  # noqa: N818  # the handler of a signal may raise any exception
    pass


ENDS = pytest.mark.parametrize("end", [Alarm, SystemExit, KeyboardInterrupt, asyncio.CancelledError])


def raises(end: type[BaseException]) -> Callable[..., Any]:
    def raised(*_: object, **__: object) -> Any:
        raise end

    return raised


# --- the bulkhead


@ENDS
def test_an_interrupted_wait_for_a_slot_leaves_no_entry_in_the_queue(
    monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    bulkhead = Bulkhead("callee", QUEUE)
    assert bulkhead.try_enter()
    with monkeypatch.context() as signalled:
        signalled.setattr(threading.Event, "wait", raises(end))
        with pytest.raises(end):
            bulkhead.enter_sync(5)
    bulkhead.leave()
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 0)
    assert bulkhead.try_enter()


@ENDS
def test_a_slot_granted_to_an_interrupted_wait_is_returned(
    monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    bulkhead = Bulkhead("callee", QUEUE)
    assert bulkhead.try_enter()

    def granted_and_signalled(*_: object) -> bool:
        bulkhead.leave()
        raise end

    monkeypatch.setattr(threading.Event, "wait", granted_and_signalled)
    with pytest.raises(end):
        bulkhead.enter_sync(5)
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 0)


def test_a_call_that_a_full_queue_refuses_leaves_no_entry_in_the_queue() -> None:
    bulkhead = Bulkhead("callee", BulkheadPolicy(max_concurrent=1))
    assert bulkhead.try_enter()
    with pytest.raises(BulkheadFullError):
        bulkhead.enter_sync(5)
    bulkhead.leave()
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 0)


# --- the attempts of a call


class Refusing(PromptListener):
    def on_event(self, _: Event) -> None:
        raise SystemExit


def pipeline(clock: FakeClock, **strategies: Any) -> tuple[Outbound, Bulkhead]:
    bulkhead = Bulkhead("callee", QUEUE)
    return Outbound("callee", bulkhead=bulkhead, clock=clock, **strategies), bulkhead


async def fail() -> None:
    raise ConnectionResetError


async def messages(count: int = 3) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def failing() -> AsyncIterator[int]:
    yield 1
    raise ConnectionResetError


@pytest.mark.parametrize("shell", ["call", "call_sync", "stream", "stream_sync", "once"])
async def test_an_event_listener_that_ends_the_process_leaks_no_slot(clock: FakeClock, shell: str) -> None:
    breaker = CircuitBreaker("callee", BreakerPolicy(consecutive_failures=1), clock=clock, events=Events([Refusing()]))
    outbound, bulkhead = pipeline(clock, breaker=breaker)

    def fail_sync() -> Any:
        raise ConnectionResetError

    async def make() -> None:
        match shell:
            case "call":
                await outbound.call(fail)
            case "call_sync":
                outbound.call_sync(fail_sync)
            case "stream":
                _ = [message async for message in outbound.stream(failing)]
            case "stream_sync":
                list(outbound.stream_sync(fail_sync))
            case _:
                async with outbound.once():
                    await fail()

    with pytest.raises(SystemExit):
        await make()
    assert bulkhead.in_flight == 0


@ENDS
async def test_a_call_whose_classifier_is_interrupted_gives_back_the_breakers_probe(
    clock: FakeClock, end: type[BaseException]
) -> None:
    policy = BreakerPolicy(consecutive_failures=1, half_open_max_requests=1, success_threshold=1)
    breaker = CircuitBreaker("callee", policy, clock=clock)
    Outbound("callee", breaker=breaker, clock=clock)
    breaker.report(breaker.state, OSError())
    clock.advance(120)
    outbound, _ = pipeline(clock, breaker=breaker, classify=raises(end))
    with pytest.raises(end):
        await outbound.call(fail)
    if issubclass(end, Exception):
        assert breaker.current() == "open"  # an error of the classifier counts against the callee
    else:
        assert await Outbound("callee", breaker=breaker, clock=clock).call(asyncio.sleep, 0, "ok") == "ok"


def test_a_stream_whose_event_loop_was_closed_returns_its_slot() -> None:
    outbound, bulkhead = pipeline(FakeClock())
    kept: list[Any] = []

    async def begin() -> int:
        kept.append(outbound.stream(messages))
        return await anext(kept[0])  # `kept` keeps the stream, because a running loop would close a freed stream

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(begin()) == 0
    assert bulkhead.in_flight == 1
    loop.close()
    kept.clear()
    gc.collect()
    assert bulkhead.in_flight == 0


async def test_a_stream_that_the_garbage_collector_frees_returns_its_slot(clock: FakeClock) -> None:
    outbound, bulkhead = pipeline(clock)
    stream = outbound.stream(messages)
    assert await anext(stream) == 0
    del stream
    gc.collect()
    await settle()
    assert bulkhead.in_flight == 0
    assert outbound.statistics.cancelled == 1


def test_a_worker_thread_becomes_idle_after_a_signal_interrupted_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, begun, free = WorkerThreads(1), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        free.wait(60)

    def signalled(*_: object) -> None:
        begun.wait(60)
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Future, "result", signalled)
        with pytest.raises(KeyboardInterrupt):
            workers.run("callee", work, 60)
    with pytest.raises(BulkheadFullError):  # the thread is still occupied
        workers.run("callee", work, 60)
    free.set()
    while workers.idle != 1:  # no event tells when the thread is idle
        threading.Event().wait(0.001)
    assert workers.run("callee", lambda: 5, 60) == 5


# --- scopes


async def test_a_scope_can_be_left_in_another_context(clock: FakeClock) -> None:
    outbound, bulkhead = pipeline(clock, attempt_timeout=5.0)
    block = outbound.once()
    await asyncio.create_task(block.__aenter__(), context=copy_context())
    assert bulkhead.in_flight == 1
    await asyncio.create_task(block.__aexit__(None, None, None), context=copy_context())
    assert bulkhead.in_flight == 0
    assert not outbound.timer.sweep.waiting  # no timer is left that could cancel a task
    assert outbound.statistics.successful == 1
    assert remaining() is None


async def test_a_generator_that_the_garbage_collector_frees_leaves_its_scope(clock: FakeClock) -> None:
    outbound, bulkhead = pipeline(clock, attempt_timeout=5.0)

    async def inside() -> AsyncIterator[int]:
        async with outbound.once():
            yield 1

    generator = inside()
    assert await anext(generator) == 1
    del generator
    gc.collect()
    await settle()
    assert bulkhead.in_flight == 0
    assert not outbound.timer.sweep.waiting


def test_a_synchronous_request_that_ends_in_another_context_is_counted_and_returns_its_slot(tmp_path: Path) -> None:
    run = operation("run", bulkhead=BulkheadPolicy(max_concurrent=1))
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(run,))))
    request = runtime.request("run")
    copy_context().run(request.__enter__)
    copy_context().run(request.__exit__, None, None, None)
    inbound = runtime.inbound("run")
    assert inbound.bulkhead is not None
    assert inbound.bulkhead.in_flight == inbound.statistics.in_flight == 0
    assert inbound.statistics.successful == 1


async def test_a_span_that_ends_in_another_context_logs_no_error(caplog: pytest.LogCaptureFixture) -> None:
    block = span("work")
    copy_context().run(block.__enter__)
    before = context.get_current()
    with caplog.at_level(logging.DEBUG):
        block.__exit__(None, None, None)
    assert context.get_current() is before
    assert not caplog.records


async def test_a_call_after_the_end_of_its_request_has_a_timeout_and_no_deadline(
    tmp_path: Path, clock: FakeClock
) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(call(NAME), inbound=(operation("run"),))), clock=clock)
    seen: list[object] = []

    async def look() -> str:
        seen.append(remaining())
        return "written"

    async def afterwards() -> str:
        seen.append(remaining())
        await asyncio.sleep(100)  # far longer than the request's deadline
        seen.extend([remaining(), attempt_number()])
        return await runtime.call(NAME, look)

    async with runtime.request("run") as request:
        left_behind = asyncio.create_task(afterwards())
        await settle()
    assert await left_behind == "written"
    assert seen == [20.0, None, 0, 10.0]
    assert runtime.outbound(NAME).statistics.successful == 1
    assert current_request() is None
    assert request.is_over


async def test_a_task_that_outlives_its_attempt_has_the_deadline_of_the_request(
    tmp_path: Path, clock: FakeClock
) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(call(NAME), inbound=(operation("run"),))), clock=clock)
    seen: list[float | None] = []

    async def later() -> None:
        await asyncio.sleep(0.5)
        seen.append(remaining())

    async def leave_behind() -> asyncio.Task[None]:
        return asyncio.create_task(later())

    async with runtime.request("run"):
        await (await runtime.call(NAME, leave_behind))
    assert seen == [19.5]


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_timeout_does_not_replace_an_exit_or_interrupt_of_the_called_code(
    clock: FakeClock, end: type[BaseException]
) -> None:
    async def ends() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise end from None

    stopped: list[BaseException] = []

    async def guarded() -> None:
        try:
            await Timeout("callee", 1.0, clock).call(ends)
        except BaseException as error:  # noqa: BLE001  # otherwise the error would end the test run
            stopped.append(error)

    await asyncio.create_task(guarded())
    assert [type(error) for error in stopped] == [end]


# --- requests


@pytest.mark.parametrize("synchronous", [False, True], ids=["async with", "with"])
async def test_a_request_after_its_deadline_is_counted_and_takes_no_admission(
    tmp_path: Path, *, synchronous: bool
) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("1/h"), burst=1))
    heard: list[Event] = []

    class Heard(PromptListener):
        def on_event(self, event: Event) -> None:
            heard.append(event)

    run = operation("run", rate_limits=(limit,), bulkhead=BulkheadPolicy(max_concurrent=1))
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(run,))), listeners=[Heard()])

    async def enter(remaining: float) -> None:
        request = runtime.request("run", remaining=remaining)
        if synchronous:
            with request:
                pass
        else:
            async with request:
                pass

    for _ in range(3):
        with pytest.raises(DeadlineExceededError):
            await enter(0.0)
    inbound = runtime.inbound("run")
    assert inbound.bulkhead is not None
    assert (inbound.statistics.deadlines_exceeded, inbound.statistics.failed) == (3, 0)
    assert (inbound.statistics.in_flight, inbound.bulkhead.in_flight) == (0, 0)
    assert [(event.kind, event.policy) for event in heard] == [("timeout", "deadline")] * 3
    await enter(60.0)  # the refused requests took no token


async def test_a_request_that_fails_to_begin_returns_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("100/s"), burst=100))
    run = operation("run", rate_limits=(limit,), bulkhead=BulkheadPolicy(max_concurrent=1))
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(run,))))
    with monkeypatch.context() as broken:
        broken.setattr("voice_runtime.timeout.TimedScope.enter", raises(SystemExit))
        for _ in range(2):
            with pytest.raises(SystemExit):
                await runtime.request("run").__aenter__()
    async with runtime.request("run"):
        assert runtime.inbound("run").statistics.in_flight == 1
