from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from voice_policies import Adaptive as AdaptivePolicy
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import Duration, Rate, RateLimit
from voice_policies import SlidingWindow as SlidingWindowPolicy
from voice_policies import TokenBucket as TokenBucketPolicy
from voice_runtime import Bulkhead, Caller, RateLimitedError, Runtime
from voice_runtime.rate_limit.adaptive import Adaptive
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.rate_limit.keyed import Keyed, KeyedTokenBucket
from voice_runtime.rate_limit.sliding_window import SlidingWindow, WindowShape
from voice_runtime.rate_limit.token_bucket import TokenBucket
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, mount, operation
from tests.driver import seeded, settle

FOREVER = float("inf")


def gate(clock: FakeClock, limit: Any, **fields: Any) -> Gate:
    return Gate("run", RateLimit(limit=limit, **fields), clock, seeded(7))


def keyed_limit(algorithm: str, max_keys: int) -> KeyedTokenBucket | Keyed[SlidingWindow]:
    if algorithm == "token bucket":
        return KeyedTokenBucket(1, 5, max_keys)
    return Keyed(partial(SlidingWindow, WindowShape(5, 5.0)), max_keys)


def taken(bucket: Any, now: float, tries: int = 1000) -> int:
    return sum(bucket.take(now) == 0 for _ in range(tries))


def test_l1_after_idle_time_a_bucket_admits_at_most_its_burst() -> None:
    bucket = TokenBucket(10, 10, 0.0)
    assert taken(bucket, 0.0) == 10
    assert taken(bucket, 1e9) == 10


def test_l1_a_bucket_refills_by_fractions_of_a_token() -> None:
    bucket = TokenBucket(10, 10, 0.0)
    assert taken(bucket, 0.0) == 10
    assert taken(bucket, 0.5) == 5
    assert taken(bucket, 0.55) == 0
    assert taken(bucket, 0.6) == 1


@pytest.mark.parametrize(
    "limit", [TokenBucket(10, 10, 1000.0), SlidingWindow(WindowShape(10, 1.0))], ids=["token bucket", "sliding window"]
)
def test_l2_a_clock_that_runs_backwards_frees_no_admissions(limit: Any) -> None:
    assert taken(limit, 1000.0) == 10
    assert taken(limit, 500.0) == 0
    assert taken(limit, 1000.0) == 0
    assert limit.take(999.0) > 0


async def test_l3_a_cancelled_waiter_takes_no_admission_and_the_others_keep_their_order(clock: FakeClock) -> None:
    limited = gate(clock, TokenBucketPolicy(rate=Rate("1/s"), burst=1), max_wait=Duration("5s"))
    passed: list[tuple[int, float]] = []
    begun = clock.monotonic()

    async def wait(number: int) -> None:
        await limited.admit(Caller(), 1, FOREVER)
        passed.append((number, clock.monotonic() - begun))

    waiters = [asyncio.create_task(wait(number)) for number in range(6)]
    await settle()
    waiters[1].cancel()
    waiters[3].cancel()
    await settle()
    late = asyncio.create_task(wait(9))
    await asyncio.gather(*waiters, late, return_exceptions=True)
    assert [number for number, _ in passed] == [0, 2, 4, 5, 9]
    assert [at for _, at in passed] == pytest.approx([0, 1, 2, 3, 4], abs=1e-3)


async def test_l3_one_waiter_wakes_at_a_time(clock: FakeClock) -> None:
    limited = gate(clock, TokenBucketPolicy(rate=Rate("10/s"), burst=1), max_wait=Duration("1m"))
    takes = 0
    take = limited.limits.take

    class Counting:
        wait = limited.limits.wait

        def take(self, key: str, now: float, cost: int = 1) -> float:
            nonlocal takes
            takes += 1
            return take(key, now, cost)

    limited.limits = Counting()  # type: ignore[assignment]
    await asyncio.gather(*(limited.admit(Caller(), 1, FOREVER) for _ in range(100)))
    assert takes < 3 * 100  # if all waiters woke together, there would be about 100²/2 tries


async def test_l3_a_wait_longer_than_max_wait_is_refused_immediately(clock: FakeClock) -> None:
    limited = gate(clock, TokenBucketPolicy(rate=Rate("1/s"), burst=1), max_wait=Duration("2s"))
    begun = clock.monotonic()
    waiters = [asyncio.create_task(limited.admit(Caller(), 1, FOREVER)) for _ in range(5)]
    await settle()
    refused = [task.exception() for task in waiters if task.done() and task.exception()]
    assert clock.monotonic() == begun
    assert [error.retry_after for error in refused] == pytest.approx([3, 3], abs=1e-3)  # type: ignore[union-attr]
    await asyncio.gather(*waiters, return_exceptions=True)


async def test_l5_a_cost_above_the_burst_does_not_enter_the_queue(clock: FakeClock) -> None:
    limited = gate(clock, TokenBucketPolicy(rate=Rate("10/s"), burst=4), max_wait=Duration("1s"))
    await limited.admit(Caller(), 4, FOREVER)
    waiting = asyncio.create_task(limited.admit(Caller(), 1, FOREVER))
    await settle()
    begun = clock.monotonic()
    impossible = asyncio.create_task(limited.admit(Caller(), 8, FOREVER))
    behind = asyncio.create_task(limited.admit(Caller(), 3, FOREVER))
    await settle(impossible.done)
    assert clock.monotonic() == begun
    refused = impossible.exception()
    assert isinstance(refused, RateLimitedError)
    assert refused.retry_after is None
    await asyncio.gather(waiting, behind)


@pytest.mark.parametrize("algorithm", ["token bucket", "sliding window"])
def test_l4_a_limited_key_is_not_evicted_so_it_gets_no_new_burst(algorithm: str) -> None:
    keyed = keyed_limit(algorithm, 100)
    assert sum(keyed.take("limited", 0.0) == 0 for _ in range(10)) == 5
    for number in range(1100):
        keyed.take(f"key-{number}", 0.0)
    assert keyed.take("limited", 0.0) > 0
    assert len(keyed) <= 100


@pytest.mark.parametrize("algorithm", ["token bucket", "sliding window"])
def test_l4_unused_keys_are_dropped_as_new_keys_arrive(algorithm: str) -> None:
    keyed = keyed_limit(algorithm, 10_000)
    for number in range(5_000):
        keyed.take(f"old-{number}", 0.0)
    for number in range(5_000):
        keyed.take(f"new-{number}", 100.0)
    assert len(keyed) <= 5_001
    assert keyed.overflowed == 0


def test_l4_many_new_keys_share_one_count_and_get_no_extra_admissions() -> None:
    keyed = KeyedTokenBucket(1, 5, 100)
    for number in range(100):
        keyed.take(f"busy-{number}", 0.0)
    assert sum(keyed.take(f"fresh-{number}", 0.0) == 0 for number in range(1_000)) == 5


@pytest.mark.parametrize("algorithm", ["token bucket", "sliding window"])
def test_l4_a_key_that_gets_its_own_count_inherits_the_shared_count(algorithm: str) -> None:
    keyed = keyed_limit(algorithm, 2)
    keyed.take("a", 0.0)
    keyed.take("b", 0.0)
    now = 0.9 if algorithm == "token bucket" else 4.0
    assert sum(keyed.take("c", now) == 0 for _ in range(10)) == 5
    now += 1.1  # a and b have all their admissions again, so their keys can be dropped
    admitted = sum(keyed.take("c", now) == 0 for _ in range(10))
    assert (keyed.overflowed, admitted) == ((5, 1) if algorithm == "token bucket" else (10, 0))


@pytest.mark.parametrize(("algorithm", "most"), [("token bucket", 120), ("sliding window", 200)])
def test_l4_the_memory_of_a_key_is_bounded(algorithm: str, most: int) -> None:
    names = [f"tenant-{number}" for number in range(100_000)]
    gc.collect()
    tracemalloc.start()
    try:
        keyed = keyed_limit(algorithm, 100_000)
        for name in names:
            keyed.take(name, 0.0)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(keyed) == 100_000
    assert size / len(keyed) <= most


@pytest.mark.parametrize(
    "limit",
    [TokenBucketPolicy(rate=Rate("1/s"), burst=5), SlidingWindowPolicy(limit=5, window=Duration("1s"))],
    ids=["token bucket", "sliding window"],
)
async def test_l5_a_request_that_costs_more_than_the_capacity_is_refused_immediately(
    clock: FakeClock, limit: Any
) -> None:
    limited = gate(clock, limit, max_wait=Duration("1h"))
    begun = clock.monotonic()
    with pytest.raises(RateLimitedError) as refused:
        await limited.admit(Caller(), 6, FOREVER)
    assert refused.value.retry_after is None
    assert clock.monotonic() == begun
    await limited.admit(Caller(), 5, FOREVER)  # the refused request took no admission


@pytest.mark.parametrize("seed", range(5), ids="seed {}".format)
def test_l6_no_period_of_the_windows_length_contains_more_admissions_than_the_limit(seed: int) -> None:
    draw, window, now = seeded(seed), SlidingWindow(WindowShape(20, 1.0)), 0.0
    admitted: list[float] = []
    for _ in range(5_000):
        now += draw.choice([0.0, 0.001, 0.01, 0.3])
        if window.take(now) == 0:
            admitted.append(now)
        else:  # a slot becomes free at most 1/64 of the window too late
            assert sum(now - 1 - 1 / 64 - 1e-9 < at for at in admitted[-20:]) == 20
    for first, last in zip(admitted, admitted[20:], strict=False):
        assert last - first >= 1.0


def test_l6_a_burst_at_the_boundary_of_two_windows_stays_within_the_limit() -> None:
    window = SlidingWindow(WindowShape(10, 1.0))
    assert taken(window, 0.99) == 10
    assert taken(window, 1.01) == 0
    assert taken(window, 1.98) == 0
    assert taken(window, 1.99) == 10


def test_l9_a_reconfigured_limit_still_counts_earlier_admissions() -> None:
    bucket = TokenBucket(10, 10, 0.0)
    assert taken(bucket, 0.0, 8) == 8
    bucket.reconfigure(100, 10, 0.0)
    assert taken(bucket, 0.0) == 2
    keyed = KeyedTokenBucket(10, 10, 100)
    for _ in range(8):
        keyed.take("a", 0.0)
    keyed.reconfigure(1, 10, 100, 0.0)
    assert sum(keyed.take("a", 0.0) == 0 for _ in range(10)) == 2
    window = SlidingWindow(WindowShape(10, 1.0))
    assert taken(window, 0.0, 8) == 8
    window.shape.reconfigure(5, 1.0)
    assert taken(window, 0.5) == 0
    assert taken(window, 1.0) == 5


def test_l9_a_bulkhead_admits_calls_only_below_its_new_bound() -> None:
    bulkhead = Bulkhead("callee", BulkheadPolicy(max_concurrent=10))
    assert all(bulkhead.try_enter() for _ in range(10))
    bulkhead.reconfigure(BulkheadPolicy(max_concurrent=3))
    for left in range(9, -1, -1):
        assert not bulkhead.try_enter() or left < 3
        bulkhead.leave()
        assert bulkhead.in_flight <= max(left, 3)
        if left == 2:
            break
    assert bulkhead.try_enter()
    assert not bulkhead.try_enter()
    bulkhead.reconfigure(BulkheadPolicy(max_concurrent=5))
    assert [bulkhead.try_enter() for _ in range(3)] == [True, True, False]


ADAPTIVE = AdaptivePolicy(
    min_rate=Rate("10/s"),
    max_rate=Rate("100/s"),
    burst=10,
    latency=Duration("500ms"),
    increase=Rate("10/s"),
    interval=Duration("1s"),
)


def interval(limit: Adaptive, *, failed: bool = False, latency: float = 0.1, samples: int = 20) -> float:
    """Record the samples of one interval, the last sample at the interval's end. Returns the rate afterwards."""
    end = limit.ends
    for number in range(samples):
        limit.record(limit.epoch, end if number == samples - 1 else end - 0.5, latency, failed=failed)
    return limit.rate


def test_l10_an_adaptive_rate_falls_and_recovers_within_its_bounds() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    assert [interval(limit, failed=True) for _ in range(6)] == [50, 25, 12.5, 10, 10, 10]
    assert [interval(limit) for _ in range(3)] == [20, 30, 40]
    for _ in range(20):
        interval(limit)
    assert limit.rate == 100


def test_l10_high_latency_lowers_the_adaptive_rate() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    assert interval(limit, latency=0.6) == 50


def test_l10_idle_time_and_too_few_samples_do_not_change_the_adaptive_rate() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    assert interval(limit, failed=True) == 50
    assert interval(limit, samples=8) == 50
    limit.record(limit.epoch, limit.ends + 1e6, 0.1, failed=False)
    assert limit.rate == 50


def test_l10_few_samples_of_several_intervals_are_judged_together() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    assert interval(limit, failed=True) == 50
    assert [interval(limit, samples=4) for _ in range(3)] == [50, 50, 60]


def test_l10_samples_from_before_a_decrease_are_dropped() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    before = limit.epoch
    interval(limit, failed=True)
    for late in (limit.ends - 0.1, limit.ends + 0.1):
        for _ in range(20):
            limit.record(before, late, 0.1, failed=True)
    assert limit.rate == 50


def test_l10_samples_from_before_a_new_policy_are_dropped() -> None:
    limit = Adaptive(ADAPTIVE, 0.0, seeded(1))
    before = limit.epoch
    for _ in range(20):
        limit.record(before, limit.ends - 0.5, 0.6, failed=False)
    limit.reconfigure(ADAPTIVE.model_copy(update={"latency": Duration("1s"), "interval": Duration("1m")}), 10.0)
    limit.record(before, 100.0, 0.6, failed=False)
    assert (limit.rate, limit.samples) == (100, 0)
    assert limit.ends >= 70
    assert interval(limit, latency=0.6) == 100


async def test_l10_rejections_and_cancellations_do_not_count_as_samples(clock: FakeClock, tmp_path: Any) -> None:
    limits = (RateLimit(limit=ADAPTIVE),)
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(operation("run", rate_limits=limits),))), clock=clock)
    adaptive = runtime.inbound("run").gates[0].adaptive(Caller())
    assert adaptive is not None

    async def serve() -> None:
        async with runtime.request("run"):
            await asyncio.sleep(1)

    for _ in range(20):
        requests = [asyncio.create_task(serve()) for _ in range(20)]
        await settle()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        clock.advance(2)
    assert (adaptive.rate, adaptive.epoch, adaptive.samples) == (100, 0, 0)


def test_l10_replicas_end_their_intervals_at_different_times() -> None:
    ends = {Adaptive(ADAPTIVE, 0.0, seeded(seed)).ends for seed in range(20)}
    assert len(ends) == 20
    assert all(1 <= end <= 1.1 for end in ends)


@pytest.mark.parametrize(
    "limit",
    [
        TokenBucketPolicy(rate=Rate("3/s"), burst=2),
        SlidingWindowPolicy(limit=2, window=Duration("1s")),
        AdaptivePolicy(min_rate=Rate("1/s"), max_rate=Rate("3/s"), burst=2),
    ],
    ids=["token bucket", "sliding window", "adaptive"],
)
async def test_l11_a_request_passes_after_exactly_retry_after(clock: FakeClock, limit: Any) -> None:
    limited = gate(clock, limit)
    for _ in range(2):
        await limited.admit(Caller(), 1, FOREVER)
    with pytest.raises(RateLimitedError) as refused:
        await limited.admit(Caller(), 1, FOREVER)
    wait = refused.value.retry_after
    assert wait is not None
    assert wait > 0
    clock.advance(wait * 0.9)
    with pytest.raises(RateLimitedError):
        await limited.admit(Caller(), 1, FOREVER)
    clock.advance(wait * 0.1 + 1e-6)
    await limited.admit(Caller(), 1, FOREVER)


@pytest.mark.parametrize(
    "limit", [TokenBucketPolicy(rate=Rate("3/s"), burst=2), ADAPTIVE], ids=["another algorithm", "same limit"]
)
def test_l9_a_request_from_before_a_reload_may_add_a_key_to_the_old_limits(clock: FakeClock, limit: Any) -> None:
    limited = gate(clock, ADAPTIVE, key="tenant")
    read = limited.limits
    limited.reconfigure(RateLimit(limit=limit, key="tenant"))
    assert read.take("a new tenant", clock.monotonic()) == 0


async def test_each_user_of_each_tenant_has_a_separate_limit(clock: FakeClock) -> None:
    limited = gate(clock, TokenBucketPolicy(rate=Rate("1/s"), burst=1), key="user")
    await limited.admit(Caller("acme", "ann"), 1, FOREVER)
    await limited.admit(Caller("acme", "bob"), 1, FOREVER)
    await limited.admit(Caller("other", "ann"), 1, FOREVER)
    with pytest.raises(RateLimitedError):
        await limited.admit(Caller("acme", "ann"), 1, FOREVER)


@pytest.fixture
def _frequent_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_frequent_thread_switches")
@pytest.mark.parametrize("limit", ["bucket", "keyed bucket", "window"])
def test_many_threads_together_take_exactly_the_capacity(limit: str) -> None:
    burst, threads, barrier = 20_000, 8, threading.Barrier(8)
    keyed = KeyedTokenBucket(1e-9, burst, 10)
    take = {
        "bucket": partial(TokenBucket(1e-9, burst, 0.0).take, 1.0),
        "keyed bucket": partial(keyed.take, "a", 1.0),
        "window": partial(SlidingWindow(WindowShape(burst, 1e9)).take, 1.0),
    }[limit]
    counts: list[int] = []

    def run() -> None:
        barrier.wait()
        counts.append(sum(take() == 0 for _ in range(2 * burst // threads)))

    running = [threading.Thread(target=run) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sum(counts) == burst
