from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator
from random import Random

import pytest
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import CircuitBreaker as BreakerPolicy
from voice_policies import Duration
from voice_runtime import Bulkhead, CircuitBreaker, Outbound
from voice_runtime.outcome import Failure
from voice_runtime.testing import FakeClock

QUEUE = BulkheadPolicy(max_concurrent=1, max_queue=5, queue_timeout=Duration("60s"))
PATIENCE = 60.0
"""Seconds after which a thread counts as stuck."""


@pytest.fixture(autouse=True)
def collected_by_hand() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def drop_a_stream(call: Outbound) -> None:
    """Read one message of a stream and drop the stream in a reference cycle, so that only the collector closes it."""
    stream = call.stream_sync(lambda: iter([1, 2]))
    next(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)


def ends(work: Callable[[], object]) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


def test_a_freed_slot_skips_a_waiter_whose_event_loop_is_closed() -> None:
    bulkhead = Bulkhead("callee", QUEUE)
    assert bulkhead.try_enter()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(bulkhead.enter(PATIENCE))
    while not bulkhead.waiting:
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    entered = threading.Event()

    def enter() -> None:
        bulkhead.enter_sync(PATIENCE)
        entered.set()

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    while bulkhead.waiting < 2:
        threading.Event().wait(0.001)
    bulkhead.leave()
    assert entered.wait(PATIENCE)
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 1)
    # Otherwise asyncio would report a task that can never end.
    waiting.get_loop().set_exception_handler(lambda *_: None)


class CollectingQueue(deque[object]):
    """Runs the garbage collector at each append, because any allocation may run it."""

    def append(self, item: object) -> None:
        super().append(item)
        gc.collect()


def test_a_queueing_call_gets_the_slot_of_a_garbage_collected_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bulkhead = Bulkhead("callee", QUEUE)
    monkeypatch.setattr(bulkhead, "_waiting", CollectingQueue())

    def work() -> None:
        drop_a_stream(Outbound("callee", bulkhead=bulkhead))
        bulkhead.enter_sync(PATIENCE)

    assert ends(work)
    assert (bulkhead.waiting, bulkhead.in_flight) == (0, 1)


class CollectingRandom(Random):
    """Runs the garbage collector at each draw: the breaker draws its jitter inside its lock."""

    def random(self) -> float:
        gc.collect()
        return 0.0


def test_a_generator_collected_inside_the_breakers_lock_releases_its_probe() -> None:
    policy = BreakerPolicy(consecutive_failures=1, half_open_max_requests=2, success_threshold=2)
    clock = FakeClock()
    breaker = CircuitBreaker("callee", policy, random=CollectingRandom(), clock=clock)
    half_open: list[str] = []

    def work() -> None:
        breaker.failure(breaker.state, Failure("unavailable"))
        clock.advance(3600)
        drop_a_stream(Outbound("callee", breaker=breaker))
        half_open.append(breaker.state.name)
        breaker.failure(breaker.acquire(), Failure("unavailable"))

    assert ends(work)
    assert (half_open, breaker.state.name) == (["half_open"], "open")
