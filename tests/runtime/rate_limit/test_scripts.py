from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from voice_runtime.rate_limit.shared_count import SLIDING_WINDOW, TOKEN_BUCKET
from voice_runtime.rate_limit.sliding_window import RESOLUTION, SlidingWindow, WindowShape
from voice_runtime.rate_limit.token_bucket import TokenBucket
from voice_runtime.shared_store import Script

from tests.redis_servers import PATIENCE, single

HOUR = 3_600_000
START = 1_800_000_000
Take = Callable[..., int]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with single(tmp_path_factory.mktemp("redis")) as server, Redis(port=server.port) as client:
        yield client


def with_given_time(redis: Redis, script: Script) -> Take:
    """The script with two changes for tests: its first two arguments are the time, and keys live an hour longer."""
    redis.flushall()
    text = script.text
    for number in (4, 3, 2, 1):
        text = text.replace(f"ARGV[{number}]", f"ARGV[{number + 2}]")
    for found, replacement in (("redis.call('TIME')", "{ARGV[1], ARGV[2]}"), ("'PX', ", f"'PX', {HOUR} + ")):
        assert text.count(found) == 1
        text = text.replace(found, replacement)
    run = redis.register_script(text)

    def take(microseconds: int, *arguments: float) -> int:
        seconds, rest = divmod(microseconds, 1_000_000)
        return int(run(keys=["k"], args=[START + seconds, rest, *arguments]))

    return take


steps = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 12)), max_size=60)

ticks = st.integers(0, 192).map(lambda number: number * 15_625)
"""Microseconds in steps of 1/64 s. Floats represent them exactly, so the script and the local window drop an entry
at the same time."""
exact_steps = st.lists(st.tuples(ticks, st.integers(1, 12)), max_size=60)


@given(steps=steps, rate=st.integers(1, 500), burst=st.integers(1, 10))
@settings(max_examples=60)
def test_the_script_of_the_bucket_decides_exactly_like_the_local_bucket(
    redis: Redis, steps: list[tuple[int, int]], rate: int, burst: int
) -> None:
    take, local, now = with_given_time(redis, TOKEN_BUCKET), TokenBucket(rate, burst, 0.0), 0
    for elapsed, cost in steps:
        now += elapsed
        if cost > burst:
            continue  # the runtime refuses such a cost and does not ask the store
        wait, answer = local.take(now / 1e6, cost), take(now, 1e6 / rate, burst, cost, 1)
        assert (answer == cost) == (wait == 0)
        if wait:
            assert -answer / 1e6 == pytest.approx(wait, abs=2e-4 / rate + 2e-6)


@given(steps=exact_steps, limit=st.integers(1, 20), window=st.sampled_from([1, 5, 60]))
@settings(max_examples=60)
def test_the_script_of_the_window_decides_exactly_like_the_local_window(
    redis: Redis, steps: list[tuple[int, int]], limit: int, window: int
) -> None:
    take, local, now = with_given_time(redis, SLIDING_WINDOW), SlidingWindow(WindowShape(limit, window)), 0
    for elapsed, cost in steps:
        now += elapsed
        if cost > limit:
            continue
        wait, answer = local.take(now / 1e6, cost), take(now, limit, window * 1e6, cost, 1)
        assert (answer == cost) == (wait == 0)
        if wait:
            assert -answer / 1e6 == pytest.approx(wait, abs=2e-6)


@given(steps=steps, limit=st.integers(1, 20), lease=st.integers(1, 30))
@settings(max_examples=60)
def test_no_window_contains_more_admissions_than_its_limit_with_any_leases(
    redis: Redis, steps: list[tuple[int, int]], limit: int, lease: int
) -> None:
    take, now = with_given_time(redis, SLIDING_WINDOW), 0
    given_at: list[tuple[int, int]] = []
    for elapsed, cost in steps:
        now += elapsed
        if cost <= limit and (answer := take(now, limit, 1e6, cost, lease)) > 0:
            assert cost <= answer <= max(cost, lease)
            given_at.append((now, answer))
        assert sum(count for at, count in given_at if at > now - 1_000_000) <= limit


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(TOKEN_BUCKET, (100_000, 10)), (SLIDING_WINDOW, (10, 1_000_000))],
    ids=["token bucket", "sliding window"],
)
def test_a_clock_that_runs_backwards_frees_no_admissions(
    redis: Redis, script: Script, arguments: tuple[float, ...]
) -> None:
    take = with_given_time(redis, script)
    assert take(60_000_000, *arguments, 10, 1) == 10
    wait = -take(60_000_000, *arguments, 1, 1)
    assert wait > 0
    assert -take(59_900_000, *arguments, 1, 1) == wait  # as if no time had passed
    assert take(0, *arguments, 1, 1) < 0
    assert take(60_000_000, *arguments, 1, 1) < 0
    assert take(61_100_000, *arguments, 10, 1) == 10


def test_a_single_admission_is_dropped_exactly_at_the_end_of_its_window(redis: Redis) -> None:
    take = with_given_time(redis, SLIDING_WINDOW)
    assert take(0, 1, 1e6, 1, 1) == 1
    assert take(999_999, 1, 1e6, 1, 1) == -1
    assert take(1_000_000, 1, 1e6, 1, 1) == 1


def test_an_admission_leaves_the_window_at_most_one_64th_of_the_window_too_late(redis: Redis) -> None:
    take = with_given_time(redis, SLIDING_WINDOW)
    grain = 1_000_000 // RESOLUTION
    assert take(0, 2, 1e6, 1, 1) == 1
    assert take(grain // 2, 2, 1e6, 1, 1) == 1
    assert take(1_000_001, 2, 1e6, 1, 1) < 0
    assert take(1_000_001 + grain // 2, 2, 1e6, 1, 1) == 1


@pytest.mark.parametrize(
    ("script", "arguments"),
    [(TOKEN_BUCKET, (1000, 1000)), (SLIDING_WINDOW, (1000, 1_000_000))],
    ids=["token bucket", "sliding window"],
)
def test_a_key_is_small_and_expires_when_its_count_is_empty(
    redis: Redis, script: Script, arguments: tuple[float, ...]
) -> None:
    take = with_given_time(redis, script)
    for millisecond in range(1000):
        assert take(millisecond * 1000, *arguments, 1, 1) == 1
        assert HOUR - PATIENCE * 1000 < redis.pttl("k") <= HOUR + 1000
    assert (redis.memory_usage("k") or 0) <= 1500


def test_the_package_contains_exactly_two_scripts_and_each_uses_one_key() -> None:
    for script in (TOKEN_BUCKET, SLIDING_WINDOW):
        assert len(script.sha) == 40
        assert "KEYS[2]" not in script.text
    there = {file.name for file in files("voice_runtime.rate_limit").iterdir() if file.name.endswith(".lua")}
    assert there == {"token_bucket.lua", "sliding_window.lua"}
