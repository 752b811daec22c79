from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from voice_policies import Duration, Ratio, SlidingWindow, TokenBucket
from voice_runtime import Caller, RateLimitedError
from voice_runtime.rate_limit.distributed import RETRY_CLOSED
from voice_runtime.rate_limit.shared_count import TOKEN_BUCKET
from voice_runtime.redis import RedisStore, cluster, sentinel, single
from voice_runtime.testing import FakeClock

from tests import redis_servers
from tests.redis_servers import Server
from tests.runtime.rate_limit.gates import FOREVER, NAME, bucket, gate, passes, shared, window

LIMITS: dict[str, TokenBucket | SlidingWindow] = {"token bucket": bucket("1/h", 10), "sliding window": window(10, "1h")}
every_algorithm = pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_servers.single(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    running.ask("SCRIPT", "FLUSH")
    running.ask("CONFIG", "RESETSTAT")
    return running


@pytest.fixture
def store(server: Server) -> RedisStore:
    # The timeout is long, because a busy machine may take more than a second to connect.
    return RedisStore(lambda: single(server.url, socket_connect_timeout=60))


def calls(server: Server, command: str) -> int:
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.ask("INFO", "commandstats"))
    return int(found[1]) if found else 0


@every_algorithm
async def test_l7_a_check_is_one_round_trip_of_one_script(server: Server, store: RedisStore, limit: Any) -> None:
    limited = gate(store, shared(limit))
    assert [await passes(limited) for _ in range(12)] == [True] * 10 + [False] * 2
    # The first check also sends the script, and the last check is refused locally.
    assert (calls(server, "evalsha"), calls(server, "eval")) == (11, 1)


@every_algorithm
async def test_l7_gates_with_different_clocks_share_one_count(store: RedisStore, limit: Any) -> None:
    behind, ahead = (gate(store, shared(limit), clock=FakeClock(now)) for now in (0.0, 1e6))
    assert [await passes(limited) for limited in (behind, ahead) * 6] == [True] * 10 + [False] * 2


async def test_l7_a_key_names_the_service_but_not_the_callers_api_key(server: Server, store: RedisStore) -> None:
    limited = gate(store, shared(bucket("1/h", 10), key="api_key"))
    assert await passes(limited, Caller(api_key="a secret {of} any length" * 50))
    (key,) = server.ask("KEYS", "*")
    assert key.startswith(f"{NAME}:token_bucket:api_key:")
    assert "secret" not in key
    assert len(key) < 128


async def test_l7_every_key_expires(server: Server, store: RedisStore) -> None:
    for limit in (bucket("50/s", 10), window(10, "200ms")):
        limited = gate(store, shared(limit, key="tenant"))
        for number in range(20):
            assert await passes(limited, Caller(tenant=f"tenant {number}"))
    redis_servers.until(lambda: server.ask("DBSIZE") == 0, "every key has expired")


async def test_l7_the_script_is_sent_again_to_a_server_that_does_not_know_it(server: Server, store: RedisStore) -> None:
    limited = gate(store, shared(bucket("1/h", 10)))
    for _ in range(3):
        assert await passes(limited)
        server.ask("SCRIPT", "FLUSH")
    assert limited.without_store == 0
    assert calls(server, "eval") == 3


async def test_l7_in_a_cluster_each_check_goes_to_the_server_of_its_key(tmp_path: Path) -> None:
    with redis_servers.cluster(tmp_path) as servers:
        store = RedisStore(lambda: cluster(servers[0].url))
        for limit in LIMITS.values():
            limited = gate(store, shared(limit, key="tenant"))
            for number in range(20):
                caller = Caller(tenant=f"tenant {number}")
                assert [await passes(limited, caller) for _ in range(11)] == [True] * 10 + [False]
        assert limited.without_store == 0
        assert all(server.ask("DBSIZE") > 0 for server in servers)
        await store.close()


async def test_l7_commands_wait_if_all_connections_to_a_cluster_are_busy(tmp_path: Path) -> None:
    with redis_servers.cluster(tmp_path) as servers:
        store = RedisStore(lambda: cluster(servers[0].url, socket_connect_timeout=60))
        answers = await asyncio.gather(*(store.run(TOKEN_BUCKET, ("key",), 1.0, 1, 1, 1) for _ in range(500)))
        assert len(answers) == 500
        await store.close()


async def test_l7_the_limit_continues_on_the_new_primary_after_a_failover(tmp_path: Path) -> None:
    with redis_servers.watched_by_sentinels(tmp_path) as (servers, sentinels):
        addresses = [("127.0.0.1", each.port) for each in sentinels]
        store = RedisStore(lambda: sentinel(addresses, "cache"))
        limited = gate(store, shared(bucket("1000/s", 1000), when_store_unavailable="open"), timeout=2.0)
        assert await passes(limited)
        assert limited.without_store == 0
        servers[0].kill()
        deadline = time.monotonic() + redis_servers.PATIENCE
        without = -1
        while limited.without_store != without:
            without = limited.without_store
            assert time.monotonic() < deadline
            for _ in range(5):
                assert await passes(limited)
                await asyncio.sleep(0.1)
        assert without > 0
        assert servers[1].ask("ROLE")[0] == "master"
        await store.close()


@pytest.mark.parametrize(
    ("mode", "admitted"), [("open", 20), ("closed", 0), ("local_share", 5)], ids=["open", "closed", "local share"]
)
@pytest.mark.parametrize("how", ["killed", "hanging", "not connected"])
async def test_l8_without_its_store_a_limit_follows_when_store_unavailable(
    tmp_path: Path, mode: str, admitted: int, how: str
) -> None:
    with redis_servers.single(tmp_path) as own:
        policy = shared(bucket("1/h", 20), when_store_unavailable=mode, local_share=Ratio("25%"))
        store = None if how == "not connected" else RedisStore(lambda: single(own.url))
        limited = gate(store, policy, timeout=0.2)
        async with AsyncExitStack() as at_end:
            if store is not None:
                at_end.push_async_callback(store.close)
            if how == "killed":
                own.kill()
            elif how == "hanging":
                assert await passes(gate(store, shared(bucket("1/h", 20))))
                own.pause()
                at_end.callback(own.resume)
            assert sum([await passes(limited) for _ in range(20)]) == admitted
            assert limited.without_store == 20
            if limited.connection is not None:
                breaker = limited.connection.call.breaker
                assert breaker is not None
                assert breaker.not_permitted > 0, (
                    "five failures open the breaker, and the other checks do not wait for the timeout"
                )


async def test_l8_a_refusal_without_the_store_has_a_retry_after() -> None:
    with pytest.raises(RateLimitedError) as caught:
        await gate(None, shared(bucket("1/h", 20), when_store_unavailable="closed")).admit(Caller(), 1, FOREVER)
    assert caught.value.retry_after == RETRY_CLOSED


async def test_l8_the_breaker_keeps_most_checks_from_a_store_that_is_down(tmp_path: Path) -> None:
    with redis_servers.single(tmp_path) as own:
        store = RedisStore(lambda: single(own.url))
        limited = gate(store, shared(bucket("1/h", 20), when_store_unavailable="open"))
        own.kill()
        assert limited.connection is not None
        for _ in range(50):
            assert await passes(limited)
        breaker = limited.connection.call.breaker
        assert breaker is not None
        assert breaker.not_permitted >= 40
        await store.close()


@pytest.mark.parametrize("mode", ["open", "closed", "local_share"])
async def test_l8_a_store_killed_and_restarted_under_load_is_used_again(tmp_path: Path, mode: str) -> None:
    with redis_servers.single(tmp_path) as own:
        store = RedisStore(lambda: single(own.url))
        policy = shared(bucket("1000000/s", 1_000_000), when_store_unavailable=mode, key="tenant")
        limited = gate(store, policy, timeout=30.0)
        refused, ended, stop = 0, 0, False

        async def load(number: int) -> None:
            nonlocal refused, ended
            while not stop:
                refused += not await passes(limited, Caller(tenant=str(number)))
                ended += 1
                await asyncio.sleep(0.001)

        async def seen(condition: Any) -> None:
            deadline = time.monotonic() + redis_servers.PATIENCE
            while not condition():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(load(number))
            for _ in range(3):
                before = ended
                await seen(lambda before=before: ended > before + 50)
                await asyncio.to_thread(own.kill)
                without = limited.without_store
                await seen(lambda without=without: limited.without_store > without + 50)
                await asyncio.to_thread(own.start)
                await seen(lambda: limited.connection and limited.connection.call.breaker.current() == "closed")  # type: ignore[union-attr]  # the call has a breaker
                settled, before = limited.without_store, ended
                await seen(lambda before=before: ended > before + 200)
                assert limited.without_store <= settled + 8  # the checks that were in flight
            stop = True
        assert (refused > 0) == (mode == "closed")
        await store.close()


async def test_l8_no_check_gets_the_answer_of_a_cancelled_check(store: RedisStore) -> None:
    """Each check has a different lease, so the answer identifies the check."""
    random = Random(7)  # noqa: S311  # not a secret

    async def ask(number: int) -> bool:
        return bool(await store.run(TOKEN_BUCKET, (f"k:{number}",), 1.0, 1_000_000, 1, number) == number)

    kept = []
    for round_ in range(60):
        tasks = [asyncio.create_task(ask(round_ * 40 + number + 1)) for number in range(40)]
        await asyncio.sleep(random.random() * 0.004)
        for task in random.sample(tasks, 25):
            task.cancel()
            if random.random() < 0.3:
                await asyncio.sleep(0)
                task.cancel()
        kept += await asyncio.gather(*tasks, return_exceptions=True)
    answers = [each for each in kept if not isinstance(each, asyncio.CancelledError)]
    assert len(answers) >= 60 * 15
    assert len(answers) < len(kept)
    assert all(each is True for each in answers)
    assert all(await asyncio.gather(*(ask(number + 1) for number in range(100))))
    await store.close()


async def test_l3_waiters_of_one_key_pass_in_order_and_a_cancelled_waiter_takes_nothing(store: RedisStore) -> None:
    # The second waiter would pass after 2 s: even a busy machine cancels it before that time.
    limited = gate(store, shared(bucket("1/s", 1), max_wait=Duration("1m")))
    passed: list[int] = []

    async def wait(number: int) -> None:
        await limited.admit(Caller(), 1, FOREVER)
        passed.append(number)

    assert await passes(limited)
    waiters = []
    for number in range(6):
        waiters.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0.005)
    waiters[1].cancel()
    waiters[3].cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*waiters, return_exceptions=True)
    assert passed == [0, 2, 4, 5]
    await store.close()


async def test_l3_a_shared_limit_immediately_refuses_a_wait_longer_than_max_wait(store: RedisStore) -> None:
    limited = gate(store, shared(bucket("1/h", 1), max_wait=Duration("1m")))
    assert await passes(limited)
    assert not await passes(limited)
    await store.close()


@every_algorithm
async def test_l5_a_cost_above_the_limit_is_refused_without_a_request_to_the_store(
    server: Server, store: RedisStore, limit: Any
) -> None:
    limited = gate(store, shared(limit))
    with pytest.raises(RateLimitedError) as caught:
        await limited.admit(Caller(), 11, FOREVER)
    assert caught.value.retry_after is None
    assert calls(server, "eval") == 0


async def test_l9_a_changed_shared_limit_keeps_its_counts(store: RedisStore) -> None:
    limited = gate(store, shared(bucket("1/h", 10)))
    assert sum([await passes(limited) for _ in range(8)]) == 8
    limited.reconfigure(shared(bucket("1/d", 12)))
    assert sum([await passes(limited) for _ in range(8)]) == 4
    limited.reconfigure(shared(bucket("1/d", 5)))
    assert not await passes(limited)
    limited.reconfigure(shared(bucket("1/d", 20)))
    assert sum([await passes(limited) for _ in range(20)]) == 8
    await store.close()


@every_algorithm
async def test_l11_a_refusal_by_a_shared_limit_names_the_time_until_the_next_admission(
    store: RedisStore, limit: Any
) -> None:
    limited = gate(store, shared(limit))
    assert await passes(limited, cost=10)
    for _ in range(2):  # the second answer comes from memory, without the store
        with pytest.raises(RateLimitedError) as caught:
            await limited.admit(Caller(), 1, FOREVER)
        assert caught.value.retry_after == pytest.approx(3600, abs=60)
    await store.close()
