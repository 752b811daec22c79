from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError
from voice_policies import CircuitBreaker, Duration, PolicyBundle, RateLimit, Ratio, Retry, Timeout, TokenBucket
from voice_runtime import Caller, RateLimitedError, Runtime
from voice_runtime.metrics import METRICS
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.shared_count import TOKEN_BUCKET
from voice_runtime.redis import RedisStore, cluster, sentinel, single
from voice_runtime.shared_store import Script
from voice_runtime.testing import FakeClock, run

from tests.bundles import bundle, call, mount, operation
from tests.redis_servers import Server, until
from tests.redis_servers import single as single_server
from tests.runtime.rate_limit.gates import FOREVER, bucket, gate, passes, shared, window


class FakeStore:
    def __init__(self, admissions: int, wait: float = 3600) -> None:
        self.admissions = admissions
        self.wait = wait
        self.asked: list[tuple[str, int, int]] = []

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> int:
        cost, lease = int(arguments[-2]), int(arguments[-1])
        self.asked.append((keys[0], cost, lease))
        await asyncio.sleep(0)
        if cost > self.admissions:
            return -round(self.wait * 1_000_000)
        given = max(cost, min(lease, self.admissions))
        self.admissions -= given
        return given


async def test_simultaneous_checks_of_one_key_share_a_request_to_the_store(clock: FakeClock) -> None:
    store = FakeStore(60)
    limited = gate(store, shared(bucket("1/h", 100)), clock=clock)
    assert sum(await asyncio.gather(*(passes(limited) for _ in range(100)))) == 60
    # The first check sends a request. The other 99 share the second request, which admits 59. 40 share the third.
    assert [cost for _, cost, _ in store.asked] == [1, 1, 1]
    assert [lease for _, _, lease in store.asked[1:]] == [99, 40]


async def test_a_refused_cost_is_requested_again_after_the_stores_wait(clock: FakeClock) -> None:
    store = FakeStore(0, wait=10)
    limited = gate(store, shared(bucket("1/h", 100)), clock=clock)
    for _ in range(5):
        assert not await passes(limited, cost=2)
    assert len(store.asked) == 1
    store.admissions = 1
    assert await passes(limited, cost=1)  # the store may admit a smaller cost
    clock.advance(10.001)
    store.admissions = 5
    assert await passes(limited, cost=2)
    assert len(store.asked) == 3


async def test_admissions_of_a_lease_need_no_request_to_the_store(clock: FakeClock) -> None:
    store = FakeStore(100)
    limited = gate(store, shared(bucket("1/h", 100), lease=10), clock=clock)
    for _ in range(30):
        assert await passes(limited)
    assert len(store.asked) == 3


@given(
    requests=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), max_size=40),
    admissions=st.integers(0, 100),
    lease=st.integers(1, 20),
)
@settings(max_examples=100)
def test_leases_never_admit_more_than_the_store_gave(
    requests: list[tuple[int, int]], admissions: int, lease: int
) -> None:
    clock, store = FakeClock(), FakeStore(admissions)
    limited = [gate(store, shared(bucket("1/h", 100), lease=lease), clock=clock) for _ in range(4)]

    async def main() -> int:
        passed = await asyncio.gather(*(passes(limited[who], cost=cost) for who, cost in requests))
        return sum(cost for (_, cost), ok in zip(requests, passed, strict=True) if ok)

    admitted = run(main(), clock)
    assert admitted <= admissions - store.admissions
    assert admissions - store.admissions - admitted <= 4 * (lease + 12)


async def test_the_number_of_keys_is_bounded(clock: FakeClock) -> None:
    store = FakeStore(0)
    limited = gate(store, shared(bucket("1/h", 100), key="tenant", max_keys=100), clock=clock)
    for number in range(1000):
        assert not await passes(limited, Caller(tenant=str(number)))
    assert limited.keys() <= 102
    store.admissions, store.wait = 10**6, 0
    clock.advance(3601)
    for number in range(1000):
        assert await passes(limited, Caller(tenant=f"another {number}"))
    assert limited.keys() <= 102


async def test_after_a_failed_request_all_waiting_checks_are_decided_without_another_request(clock: FakeClock) -> None:
    class Broken(FakeStore):
        async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> int:
            await super().run(script, keys, *arguments)
            raise ConnectionResetError

    store = Broken(10)
    limited = gate(store, shared(bucket("1/h", 100), when_store_unavailable="open"), clock=clock)
    assert all(await asyncio.gather(*(passes(limited) for _ in range(50))))
    assert len(store.asked) == 1
    assert limited.without_store == 50


async def test_a_cancelled_check_lets_the_other_checks_pass(clock: FakeClock) -> None:
    store = FakeStore(100)
    limited = gate(store, shared(bucket("1/h", 100)), clock=clock)
    first, *others = [asyncio.create_task(passes(limited)) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    assert all(await asyncio.gather(*others))


def test_without_the_store_a_replica_admits_its_share_of_the_limit(clock: FakeClock) -> None:
    limited = gate(None, shared(bucket("40/s", 40), local_share=Ratio("25%")), clock=clock)

    async def main() -> tuple[int, int, float | None]:
        first = sum([await passes(limited) for _ in range(40)])
        clock.advance(0.5)
        later = sum([await passes(limited) for _ in range(40)])
        with pytest.raises(RateLimitedError) as caught:
            await limited.admit(Caller(), 20, FOREVER)
        return first, later, caught.value.retry_after

    first, later, retry_after = run(main(), clock)
    assert (first, later) == (10, 5)
    assert retry_after is not None  # a retry may pass, at another replica or after the store returns


# --- in a runtime


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with single_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


def limited_bundle(*limits: RateLimit, timeout: str = "5s", **fields: Any) -> PolicyBundle:
    store = call(
        "redis.access",
        protocol="redis",
        timeout=Timeout(attempt=Duration(timeout), overall=Duration("1m")),
        circuit_breaker=CircuitBreaker(),
        **fields,
    )
    return bundle(store, inbound=(operation("run", rate_limits=limits, deadline=Duration("1m")),))


def loaded(directory: Path, server: Server, *limits: RateLimit, **fields: Any) -> Runtime:
    server.ask("FLUSHALL")
    mounted = mount(directory, limited_bundle(*limits, **fields))
    return Runtime.load(mounted, store=RedisStore(lambda: single(server.url)))


async def enters(runtime: Runtime) -> bool:
    try:
        async with runtime.request("run", Caller(tenant="acme")):
            return True
    except RateLimitedError:
        return False


async def test_replicas_of_a_service_share_a_limit(tmp_path: Path, server: Server) -> None:
    policy = shared(bucket("1/h", 10), key="tenant")
    replicas = [loaded(tmp_path / str(number), server, policy) for number in range(3)]
    assert sum([await enters(replica) for replica in replicas * 5]) == 10
    assert replicas[0].outbound("redis.access").statistics.successful > 0


@pytest.mark.parametrize("limit", [bucket("1/s", 1), window(1, "1s")], ids=["token bucket", "sliding window"])
async def test_a_request_that_cannot_pass_in_time_behind_others_is_refused_immediately(
    limit: Any, server: Server
) -> None:
    """One request has passed, and two wait 1 s and 2 s. A further request would need 3 s."""
    server.ask("FLUSHALL")
    limited = gate(RedisStore(lambda: single(server.url)), shared(limit, max_wait=Duration("2500ms")))
    requests = [asyncio.create_task(limited.admit(Caller(), 1, FOREVER)) for _ in range(5)]
    done, waiting = await asyncio.wait(requests, timeout=0.7)
    for task in waiting:
        task.cancel()
    refused = [error.retry_after for task in done if isinstance(error := task.exception(), RateLimitedError)]
    assert (len(done), len(refused), len(waiting)) == (3, 2, 2)
    assert all(2.2 < (after or 0) <= 3 for after in refused), (
        "retry_after is the wait until this request could pass, not until the next admission"
    )


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_replaced(
    tmp_path: Path, server: Server
) -> None:
    runtime = loaded(tmp_path, server, shared(bucket("1/h", 10)))
    for _ in range(3):
        assert await enters(runtime)
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(0.05)  # the event loop reads the end of the connection
    (limited,) = runtime.inbound("run").gates
    assert isinstance(limited, DistributedGate)
    assert (limited.admitted, limited.without_store) == (3, 0)
    assert runtime.outbound("redis.access").statistics.failed == 0


async def test_counts_survive_a_reload_that_changes_the_limit(tmp_path: Path, server: Server) -> None:
    runtime = loaded(tmp_path, server, shared(bucket("1/h", 10)))
    assert sum([await enters(runtime) for _ in range(6)]) == 6
    mount(tmp_path, limited_bundle(shared(bucket("1/d", 8)), timeout="6s"))
    assert runtime.reload()
    assert sum([await enters(runtime) for _ in range(6)]) == 2


async def test_a_registered_fallback_does_not_replace_the_answer_of_the_store(tmp_path: Path) -> None:
    policy = shared(bucket("1/h", 10), when_store_unavailable="closed")
    soft = limited_bundle(policy, necessity="soft", fallback="no cache")
    runtime = Runtime.load(
        mount(tmp_path, soft), store=RedisStore(lambda: single("redis://127.0.0.1:1"))
    )  # no server listens there
    runtime.fallback("redis.access", lambda error: 1)  # noqa: ARG005  # a fallback gets the error
    assert not await enters(runtime)


async def test_a_failed_check_is_not_retried_because_it_may_have_counted(tmp_path: Path) -> None:
    class Failing(FakeStore):
        async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> int:
            await super().run(script, keys, *arguments)
            raise ConnectionResetError

    store = Failing(10)
    repeated = limited_bundle(shared(bucket("1/h", 10)), retry=Retry(max_retries=2, base_delay=Duration("1ms")))
    runtime = Runtime.load(mount(tmp_path, repeated), store=store)
    await enters(runtime)
    assert len(store.asked) == 1


@pytest.mark.parametrize("connect", [single, cluster])
@pytest.mark.parametrize("url", ["redis:6379", "swordfish@redis:6379", "http://redis:6379", ""])
def test_a_url_without_a_known_scheme_is_refused_and_the_error_hides_its_password(connect: Any, url: str) -> None:
    with pytest.raises(ValueError, match="must begin with redis://, rediss:// or unix://") as refused:
        connect(url)
    assert "swordfish" not in str(refused.value)


async def test_every_error_of_the_store_is_raised_as_a_connection_error(server: Server) -> None:
    with pytest.raises(ConnectionError):
        await RedisStore(lambda: single("redis://127.0.0.1:1")).run(
            TOKEN_BUCKET, ("k",), 1.0, 1, 1, 1
        )  # no server listens there
    server.ask("RPUSH", "a list", "x")
    with pytest.raises(ConnectionError, match="WRONGTYPE"):
        await RedisStore(lambda: single(server.url)).run(TOKEN_BUCKET, ("a list",), 1.0, 1, 1, 1)
    with pytest.raises(ConnectionError, match="RedisClusterException"):
        await RedisStore(lambda: cluster("redis://127.0.0.1:1")).run(TOKEN_BUCKET, ("k",), 1.0, 1, 1, 1)


@pytest.mark.parametrize("answer", [None, [], "OK", b""], ids=["null", "empty list", "text", "empty bytes"])
async def test_an_answer_that_is_no_number_counts_as_a_failed_store(answer: Any) -> None:
    class Odd:
        async def run(self, *_: Any) -> Any:
            return answer

    limited = gate(Odd(), shared(bucket("10/s", 10)))
    assert await passes(limited)
    assert limited.without_store == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the garbage collector closes the connections of an ended loop
def test_event_loops_that_ended_leave_no_connections(tmp_path: Path, server: Server) -> None:
    runtime = loaded(tmp_path, server, shared(bucket("1000/s", 1000)))

    def connections() -> int:
        gc.collect()
        return len(str(server.ask("CLIENT", "LIST", "TYPE", "normal")).splitlines())

    assert asyncio.run(enters(runtime))
    before = connections()
    for _ in range(10):
        assert asyncio.run(enters(runtime))
    until(lambda: connections() <= before + 1, "the connections of ended loops are closed")


async def test_sentinels_may_have_another_password_than_the_store(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "sentinel.conf"
    file.write_text(f"sentinel monitor cache 127.0.0.1 {server.port} 1\n")
    asked = Server(tmp_path, str(file), "--sentinel")
    try:
        asked.ask("ACL", "SETUSER", "default", "resetpass", ">secret")
        addresses = [("127.0.0.1", asked.port)]
        known = RedisStore(lambda: sentinel(addresses, "cache", sentinel_options={"password": "secret"}))
        assert await known.run(TOKEN_BUCKET, ("behind a sentinel",), 1.0, 5, 1, 1) == 1
        with pytest.raises(ConnectionError):
            await RedisStore(lambda: sentinel(addresses, "cache")).run(TOKEN_BUCKET, ("k",), 1.0, 5, 1, 1)
    finally:
        asked.kill()


@pytest.fixture
def watching(tmp_path: Path, server: Server) -> Iterator[Server]:
    file = tmp_path / "sentinel.conf"
    file.write_text(f"sentinel monitor cache 127.0.0.1 {server.port} 1\n")
    asked = Server(tmp_path, str(file), "--sentinel")
    yield asked
    asked.kill()


async def test_a_sentinel_that_ends_each_connection_is_asked_once() -> None:
    asked = []

    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        writer.close()

    async with await asyncio.start_server(end, "127.0.0.1", 0) as ending:
        connections = sentinel([ending.sockets[0].getsockname()], "cache")
        with pytest.raises(RedisError):
            await connections.execute("PING")
    assert len(asked) == 1


async def test_silent_sentinels_do_not_delay_the_answer_of_another_sentinel(watching: Server) -> None:
    """The client has no timeout for Sentinels here, so the test hangs if the client waits for a silent Sentinel."""
    writers = []

    async def keep_silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with await asyncio.start_server(keep_silent, "127.0.0.1", 0) as silent:
        unanswering = silent.sockets[0].getsockname()
        addresses = [unanswering, unanswering, ("127.0.0.1", watching.port)]
        no_timeout = {"socket_timeout": None, "socket_connect_timeout": None}
        connections = sentinel(addresses, "cache", sentinel_options=no_timeout, socket_connect_timeout=60)
        assert await connections.execute("PING") == b"PONG"
        await connections.close()
        for writer in writers:
            writer.close()


async def test_an_error_names_each_sentinel_that_knows_no_primary() -> None:
    addresses = [("127.0.0.1", 1), ("127.0.0.1", 2)]  # no server listens there
    with pytest.raises(ConnectionError, match=r"port=1\b.*port=2\b|port=2\b.*port=1\b"):
        await RedisStore(lambda: sentinel(addresses, "cache")).run(TOKEN_BUCKET, ("k",), 1.0, 5, 1, 1)


def test_threads_and_forked_processes_share_the_limit(tmp_path: Path, server: Server) -> None:
    runtime = loaded(tmp_path, server, shared(bucket("1/h", 12)))
    admitted: list[bool] = []

    def request() -> None:
        for _ in range(5):
            try:
                with runtime.request("run"):
                    admitted.append(True)
            except RateLimitedError:
                admitted.append(False)

    threads = [threading.Thread(target=request) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted == [True] * 10
    child = os.fork()
    if not child:
        admitted.clear()
        request()
        os._exit(0 if admitted == [True] * 2 + [False] * 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_decisions_without_the_store_are_counted_and_a_missing_store_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = shared(bucket("1/h", 10), local_share=Ratio("50%"), key="tenant")
    runtime = Runtime.load(mount(tmp_path, limited_bundle(policy)))
    assert "run: the distributed limit has no store, so when_store_unavailable applies: local_share" in caplog.text
    assert sum([await enters(runtime) for _ in range(8)]) == 5
    samples = {metric.name: dict(metric.read(runtime)) for metric in METRICS if "rate_limit" in metric.name}
    assert samples["voice_rate_limit_without_store_total"] == {("run", "0", "tenant"): 8}
    assert samples["voice_rate_limit_requests_total"] == {
        ("run", "0", "tenant", "admitted"): 5,
        ("run", "0", "tenant", "rejected"): 3,
    }
    assert samples["voice_rate_limit_keys"] == {("run", "0", "tenant"): 1}


def test_a_limit_that_a_reload_makes_local_no_longer_uses_the_store(tmp_path: Path, server: Server) -> None:
    runtime = loaded(tmp_path, server, shared(bucket("1/h", 10)))
    assert isinstance(runtime.inbound("run").gates[0], DistributedGate)
    mount(tmp_path, limited_bundle(RateLimit(limit=TokenBucket.model_validate({"rate": "1/h", "burst": 5}))))
    assert runtime.reload()
    assert not isinstance(runtime.inbound("run").gates[0], DistributedGate)


def test_a_limit_is_reconfigured_while_an_event_loop_adds_keys() -> None:
    policy = shared(bucket("1/h", 100), key="tenant", lease=10)
    limited = gate(FakeStore(10**9), policy)

    async def many_tenants() -> None:
        for number in range(3_000):
            await passes(limited, Caller(tenant=f"tenant-{number}"))

    serving = threading.Thread(target=asyncio.run, args=(many_tenants(),))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        serving.start()
        while serving.is_alive():
            limited.reconfigure(policy)
    finally:
        sys.setswitchinterval(before)
        serving.join()
    assert limited.admitted == 3_000
