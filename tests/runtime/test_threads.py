"""Threads, event loops and forked processes work as docs/runtime.md promises."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvloop
from voice_policies import Bulkhead, Duration, Rate, RateLimit, Timeout, TokenBucket
from voice_runtime import Event, Events, RateLimitedError, Runtime
from voice_runtime.bundle_source import BundleSource
from voice_runtime.grpc.connections import Connections
from voice_runtime.shared_store import PerLoop
from voice_runtime.timeout import Timer
from voice_runtime.window import Window

from tests.bundles import bundle, call, mount, operation

PATIENCE = 60.0
"""Seconds after which a thread or process counts as stuck."""


@pytest.fixture(params=[1e-6, sys.getswitchinterval()], ids=["shortest interval", "default interval"])
def switch_interval(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    ready = threading.Barrier(count)

    def begin(number: int) -> None:
        ready.wait(PATIENCE)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(begin, range(count)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # the condition depends on another thread
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("switch_interval")
def test_a_timeout_is_never_registered_with_the_event_loop_of_another_thread() -> None:
    timer = Timer(60.0)

    async def bind_often() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20_000):
            assert timer.bind()[0].loop is loop

    in_threads(4, lambda _: asyncio.run(bind_often()))


@pytest.mark.usefixtures("switch_interval")
def test_a_window_that_many_threads_use_counts_each_call_exactly_once() -> None:
    """Time advances while ten threads count, so several threads find the same bucket expired."""
    threads, counts, now = 10, 3_000, [0.0]
    window = Window(1e9, 0.0)

    def count(number: int) -> None:
        for _ in range(counts):
            if number == 0:
                now[0] += 1e5  # a bucket ends after a thousand of these steps
            window.add(now[0])

    in_threads(threads, count)
    assert window.total(now[0]) == threads * counts
    assert window.total(now[0] + 1.2e9) == 0


@pytest.mark.usefixtures("switch_interval")
def test_the_counts_of_many_threads_leave_the_window() -> None:
    """At every count, every thread finds an expired bucket."""
    window, now = Window(1.0, 0.0), [0.0]

    def count(_: int) -> None:
        for _ in range(30_000):
            now[0] += 0.2
            window.add(now[0])

    in_threads(8, count)
    assert window.total(now[0] + 10.0) == 0


class Slow:
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.permits = threading.Semaphore(0)
        self.entered = threading.Event()

    def on_event(self, event: Event) -> None:
        self.entered.set()
        assert self.permits.acquire(timeout=PATIENCE)
        self.heard.append(event.target)


def test_a_publisher_does_not_wait_for_the_events_of_other_threads() -> None:
    slow, rounds = Slow(), 200
    events = Events([slow])
    first = threading.Thread(target=events.publish, args=(Event("rejected", "bulkhead", "first"),), daemon=True)
    first.start()
    assert slow.entered.wait(PATIENCE)
    for number in range(rounds):
        events.publish(Event("rejected", "bulkhead", str(number)))  # returns immediately, although the listener waits
    slow.permits.release()
    first.join(PATIENCE / 2)
    assert not first.is_alive()
    assert slow.heard == ["first"]
    held = threading.active_count()
    slow.permits.release(rounds)
    asyncio.run(until(lambda: len(slow.heard) == rounds + 1))
    assert slow.heard == ["first", *map(str, range(rounds))]
    asyncio.run(until(lambda: threading.active_count() < held))


def test_events_for_a_listener_with_a_full_queue_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice_runtime.events.LONGEST_QUEUE", 5)
    slow = Slow()
    events = Events([slow])
    first = threading.Thread(target=events.publish, args=(Event("rejected", "bulkhead", "first"),), daemon=True)
    first.start()
    assert slow.entered.wait(PATIENCE)
    for number in range(8):
        events.publish(Event("rejected", "bulkhead", str(number)))
    slow.permits.release(6)
    first.join(PATIENCE)
    asyncio.run(until(lambda: len(slow.heard) == 6))
    assert events.dropped == 3


def test_every_event_loop_gets_admissions_of_a_limit_that_loops_share(tmp_path: Path) -> None:
    limit = RateLimit(limit=TokenBucket(rate=Rate("200/s"), burst=1), max_wait=Duration("5s"))
    run = operation("run", deadline=Duration("30s"), rate_limits=(limit,))
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(run,))))
    passed: list[int] = []

    async def one(number: int) -> None:
        try:
            async with runtime.request("run"):
                passed.append(number)
        except RateLimitedError:
            """The limit may refuse some requests. The test checks that every loop gets an admission."""

    async def many(number: int) -> None:
        await asyncio.gather(*(one(number) for _ in range(20)))

    in_threads(3, lambda number: asyncio.run(many(number)))
    assert set(passed) == {0, 1, 2}


def test_threads_end_with_their_runtime(tmp_path: Path) -> None:
    before = threading.active_count()
    for number in range(10):
        runtime = Runtime.load(mount(tmp_path / str(number), bundle(call("rag-engine.context"))))
        assert runtime.call_sync("rag-engine.context", lambda: 1) == 1
    del runtime
    gc.collect()
    asyncio.run(until(lambda: threading.active_count() <= before))


def test_a_build_without_the_global_interpreter_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(RuntimeError, match="needs the global interpreter lock"):
        Runtime.load(mount(tmp_path, bundle()))


def in_child(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9


def test_a_forked_process_makes_synchronous_calls_and_follows_the_bundle(tmp_path: Path) -> None:
    """The runtime was loaded before the fork, so its threads exist only in the parent."""
    runtime = Runtime.load(mount(tmp_path, bundle(call("rag-engine.context"))), poll_interval=0.02)
    other = bundle(call("rag-engine.context"), call("model-adapter.generate"))

    def followed() -> bool:
        if runtime.call_sync("rag-engine.context", lambda: 7) != 7:
            return False
        mount(tmp_path, other)
        deadline = time.monotonic() + PATIENCE
        while runtime.digest != other.metadata.digest and time.monotonic() < deadline:
            time.sleep(0.01)
        return runtime.digest == other.metadata.digest

    with runtime:
        assert runtime.call_sync("rag-engine.context", lambda: 1) == 1
        assert in_child(followed) == 0


def test_a_fork_waits_until_the_watcher_has_read_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a fork copied the process in the middle of a reload, the lock would stay locked in the child."""
    runtime = Runtime.load(mount(tmp_path, bundle(call("rag-engine.context"))), poll_interval=0.01)
    reading, go_on = threading.Event(), threading.Event()
    read = BundleSource.read

    def slow(source: BundleSource) -> bytes:
        reading.set()
        go_on.wait(0.2)
        return read(source)

    def reloads() -> bool:
        go_on.set()
        return not runtime.reload()

    monkeypatch.setattr(BundleSource, "read", slow)
    with runtime:
        assert reading.wait(PATIENCE)
        assert in_child(reloads) == 0
        go_on.set()


def test_timeouts_and_bulkheads_work_on_uvloop(tmp_path: Path) -> None:
    short = Timeout(attempt=Duration("50ms"), overall=Duration("50ms"))
    slow = call("rag-engine.context", timeout=short, bulkhead=Bulkhead(max_concurrent=1))
    runtime = Runtime.load(mount(tmp_path, bundle(slow, inbound=(operation("run"),))))

    async def words() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    async def use() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await runtime.call("rag-engine.context", asyncio.sleep, 60)
        async with runtime.request("run"):
            assert await runtime.call("rag-engine.context", asyncio.sleep, 0, "answer") == "answer"
        assert [word async for word in runtime.stream("rag-engine.context", words)] == ["one", "two"]

    uvloop.run(use())


class ReadSlowly(asyncio.SelectorEventLoop):
    """Lets another thread run while this thread asks whether the loop is closed."""

    meanwhile: Callable[[], object] | None = None

    def is_closed(self) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().is_closed()


@pytest.mark.parametrize("get", [PerLoop(object).get, Connections(time.monotonic, min)._of_this_loop])  # noqa: SLF001  # the place of the race
def test_two_loops_may_begin_to_use_a_shared_object_at_the_same_time(get: Callable[[], object]) -> None:
    async def taken() -> object:
        return get()

    early, late, loop = ReadSlowly(), asyncio.new_event_loop(), asyncio.new_event_loop()
    early.run_until_complete(taken())
    with ThreadPoolExecutor(1) as pool:
        first: list[object] = []
        early.meanwhile = lambda: first.append(pool.submit(late.run_until_complete, taken()).result(PATIENCE))
        loop.run_until_complete(taken())
    assert first == [late.run_until_complete(taken())]
    for each in (early, late, loop):
        each.close()
