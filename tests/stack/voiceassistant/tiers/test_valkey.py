from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from voice_models.token_budget import TOKEN_BUDGET
from voice_models.usage import ModelAttempted
from voice_models.usage_stream import MAX_LENGTH as USAGE_EVENTS
from voice_models.usage_stream import STREAM, USAGE_STREAM
from voice_policies import RateLimit
from voice_runtime.redis import RedisStore
from voice_runtime.redis import single as reached
from voice_saga import Message, MessagesRefusedError
from voice_saga.redis_streams import MAX_LENGTH, PAYLOAD, RedisStreams
from voice_saga.transport import consume

from components.valkey.replicated import ReplicatedValkey
from components.valkey.server import Valkey
from stack.voiceassistant.catalog.models import BUDGETS
from stack.voiceassistant.tiers.data import CACHE_COMMANDS
from tests.loopback import free_port
from tests.platforms import platform
from tests.redis_servers import NO_RETRY, single
from tests.runtime.rate_limit.gates import gate, passes
from tests.stack.voiceassistant.tiers.real_servers import (
    VALKEY_PATHS,
    Place,
    answers_probe,
    files,
    password_of,
    refused_by_valkey,
    running_valkey,
)

SHARED = {"scope": "distributed", "store": "redis.access"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_port()
    with running_valkey("dev", "redis", tmp_path_factory.mktemp("cache"), port):
        yield port


@pytest.mark.parametrize(("environment", "name"), [("dev", "redis"), ("prod", "redis-node"), ("prod", "events")])
def test_valkey_refuses_every_misspelt_key(tmp_path: Path, environment: str, name: str) -> None:
    place = Place(tmp_path, VALKEY_PATHS)
    configured = place.moved(files(environment, f"{name}-config")["valkey.conf"]).splitlines()
    for line in configured:
        assert refused_by_valkey(tmp_path / "valkey.conf", configured, line.partition(" ")[0]), line


def append(publisher: Any, times: int) -> None:
    for _ in range(times):
        publisher.xadd("message.created", {"text": "x" * 100_000})


def connected(port: int, service: str, store: str) -> Any:
    password = password_of(f"{service}-{store}")
    return Redis(port=port, username=service, password=password, decode_responses=True, retry=NO_RETRY)


def test_a_service_reads_and_writes_only_its_own_keys(cache: int) -> None:
    identity = connected(cache, "identity-service", "redis")
    assert identity.set("identity-service:session:1", "x", ex=60)
    assert identity.get("identity-service:session:1") == "x"
    with pytest.raises(NoPermissionError):
        identity.get("rag-engine:answer:1")


@pytest.mark.parametrize("command", ["FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "ACL LIST", "SHUTDOWN NOSAVE"])
def test_a_service_may_not_administer_the_cache(cache: int, command: str) -> None:
    with pytest.raises(NoPermissionError):
        connected(cache, "identity-service", "redis").execute_command(*command.split())


@pytest.mark.parametrize(
    ("service", "counted"),
    [("agent-engine", True), ("rag-engine", False)],
    ids=["own limit", "limit of another service"],
)
def test_a_service_may_not_count_the_limits_of_another_service(tmp_path: Path, service: str, *, counted: bool) -> None:
    limit = RateLimit.model_validate({**SHARED, "limit": {"algorithm": "token_bucket", "rate": "1/h", "burst": 5}})
    with single(tmp_path) as server:
        server.ask("ACL", "SETUSER", service, "on", ">secret", f"~{service}:*", *CACHE_COMMANDS.split())
        url = f"redis://{service}:secret@127.0.0.1:{server.port}"
        limited = gate(RedisStore(lambda: reached(url)), limit)  # a limit of agent-engine, whichever service connects
        asyncio.run(passes(limited))
        assert (limited.without_store == 0) == counted


def test_the_cache_refuses_a_client_without_a_valid_login(cache: int) -> None:
    with pytest.raises(AuthenticationError):
        Redis(port=cache, retry=NO_RETRY).ping()
    another = password_of("rag-engine-redis")
    with pytest.raises(AuthenticationError):
        Redis(port=cache, username="identity-service", password=another, retry=NO_RETRY).ping()


def test_valkey_accepts_the_old_password_until_a_restart_and_then_only_the_new_one(tmp_path: Path) -> None:
    port = free_port()
    password = "rotated"  # noqa: S105 - a password of this test
    new: Any = Redis(port=port, username="identity-service", password=password, retry=NO_RETRY)
    with running_valkey("dev", "redis", tmp_path, port):
        (secret,) = tmp_path.glob("etc/voice/secrets/identity-service-redis/password")
        secret.write_text("rotated")
        assert connected(port, "identity-service", "redis").ping()
        with pytest.raises(AuthenticationError):
            new.ping()
    with running_valkey("dev", "redis", tmp_path, port, rotated={"identity-service-redis": "rotated"}):
        assert new.ping()
        with pytest.raises(AuthenticationError):
            connected(port, "identity-service", "redis").ping()


def test_the_user_of_the_probes_may_only_query_health(cache: int) -> None:
    health: Any = Redis(port=cache, username="health", password="")
    assert health.ping()
    assert health.execute_command("ROLE")[0] == b"master"
    with pytest.raises(NoPermissionError):
        health.get("identity-service:session:1")
    assert answers_probe(Valkey.scrape, cache)
    assert not answers_probe(ReplicatedValkey.sentinel_scrape, cache), "the server answers no client without a login"


def test_the_gateway_may_run_a_script_that_counts_its_limits(cache: int) -> None:
    gateway = connected(cache, "gateway", "redis")
    assert gateway.eval("return redis.call('incr', KEYS[1])", 1, "plugin-limit-count-tenant-1") == 1


def test_events_survive_a_killed_server(tmp_path: Path) -> None:
    port = free_port()
    with running_valkey("prod", "events", tmp_path, port):
        connected(port, "conversation-service", "events").xadd("message.created", {"id": "1"})
    with running_valkey("prod", "events", tmp_path, port):
        consumer = connected(port, "analytics-service", "events")
        consumer.xgroup_create("message.created", "analytics-service", id="0")
        ((_, [(event, fields)]),) = consumer.xreadgroup("analytics-service", "one", {"message.created": ">"})
        assert fields == {"id": "1"}
        assert consumer.xack("message.created", "analytics-service", event) == 1


def test_publishers_and_consumers_have_only_the_rights_for_their_declared_events(tmp_path: Path) -> None:
    port = free_port()
    with running_valkey("prod", "events", tmp_path, port):
        publisher = connected(port, "conversation-service", "events")
        consumer = connected(port, "indexing-service", "events")
        with pytest.raises(NoPermissionError):
            publisher.xadd("document.uploaded", {"id": "1"})
        with pytest.raises(NoPermissionError):
            consumer.xadd("document.uploaded", {"id": "1"})
        with pytest.raises(NoPermissionError):
            consumer.xadd("message.created.dead-letters", {"id": "1"})
        assert consumer.xadd("document.uploaded.dead-letters", {"id": "1"})
        with pytest.raises(NoPermissionError):
            consumer.xgroup_create("message.created", "indexing-service", mkstream=True)
        with pytest.raises(NoPermissionError):
            publisher.delete("message.created")


async def use_events(port: int, service: str, *, budgets: bool) -> None:
    user = {"username": service, "password": password_of(f"{service}-events")}
    store = RedisStore(lambda: reached(f"redis://127.0.0.1:{port}", **user))
    try:
        await store.run(USAGE_STREAM, (STREAM,), 10, service, "{}")
        if budgets:
            await store.run(TOKEN_BUDGET, (f"{service}:token-budget:a",), "reserve", 1, 60, 0, 100, 60)
        with pytest.raises(ConnectionError, match="NoPermissionError"):
            await store.run(USAGE_STREAM, ("message.created",), 10, service, "{}")
    finally:
        await store.close()


def test_services_with_model_calls_may_append_usage_and_reserve_tokens(tmp_path: Path) -> None:
    services = {
        service.name: any(call.name == BUDGETS for operation in service.operations for call in operation.calls)
        for service in platform("prod").graph.services
        if any(STREAM in operation.appends for operation in service.operations)
    }
    assert {*services.values()} == {True, False}
    port = free_port()
    with running_valkey("prod", "events", tmp_path, port):
        for service, budgets in services.items():
            asyncio.run(use_events(port, service, budgets=budgets))
        reader = connected(port, "analytics-service", "events")
        assert reader.xlen(STREAM) == len(services)


def test_a_declared_consumer_may_run_every_command_that_consuming_needs(tmp_path: Path) -> None:
    port = free_port()
    with running_valkey("prod", "events", tmp_path, port):
        connected(port, "knowledge-service", "events").xadd("document.uploaded", {"id": "1", "payload": "{}"})
        asyncio.run(consume_poison(port))


async def consume_poison(port: int) -> None:
    url = f"redis://indexing-service:{quote(password_of('indexing-service-events'))}@127.0.0.1:{port}"
    async with AsyncRedis.from_url(url) as redis:
        transport = RedisStreams(redis, redeliver_after=0.01, max_deliveries=1, block=0.01)
        task = asyncio.create_task(consume(transport, "indexing-service", {"document.uploaded": fail}))
        async with asyncio.timeout(60):
            while not transport.dead_letters.total():  # noqa: ASYNC110  # nothing announces that the counter changes
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await redis.xinfo_consumers("document.uploaded", "indexing-service") == []


async def fail(_: Message) -> None:
    raise ValueError("never")


PUBLISHERS = {
    event: service.name
    for service in platform("prod").graph.services
    for operation in service.operations
    for event in operation.publishes
}
TRACE = f"00-{'0' * 32}-{'0' * 16}-01"
SCALE = 25
"""Factor by which streams and memory are smaller in the test than in the platform."""


USAGE = ModelAttempted(
    route="llm.generate",
    deployment="openai-large",
    provider="openai",
    model="large-2026-01-01",
    tenant="00000000-0000-0000-0000-000000000000",
    attempt=1,
    input_units=3_000,
    input_unit="token",
    output_tokens=150,
    micro_usd=1_234,
    estimated=False,
    ending="finished",
    error_class=None,
    finish_reason="stop",
    first_token=0.312,
    duration=1.234,
)


async def append_usage(port: int) -> None:
    payload, longest, together = json.dumps(asdict(USAGE)), USAGE_EVENTS // SCALE, 1000
    url = f"redis://model-adapter:{quote(password_of('model-adapter-events'))}@127.0.0.1:{port}"
    async with AsyncRedis.from_url(url) as redis:
        for _ in range(2 * longest // together):
            pipeline = redis.pipeline(transaction=False)
            for _ in range(together):
                pipeline.xadd(STREAM, {"id": uuid.uuid4().hex, "payload": payload, "trace": ""}, maxlen=longest)
            await pipeline.execute()


async def publish(port: int, max_length: int) -> None:
    for event, service in PUBLISHERS.items():
        url = f"redis://{service}:{quote(password_of(f'{service}-events'))}@127.0.0.1:{port}"
        async with AsyncRedis.from_url(url) as redis:
            transport = RedisStreams(redis, max_length=max_length)
            for first in range(0, 2 * max_length, 100):
                text = "x" * (PAYLOAD - len('{"text":""}'))
                named = [f"{event}/{first + each}" for each in range(100)]
                await transport.send([Message(name, event, {"text": text}, TRACE) for name in named])


def test_full_streams_leave_free_memory_in_the_store(tmp_path: Path) -> None:
    configured = files("prod", "events-config")["valkey.conf"]
    (maxmemory,) = re.findall(r"^maxmemory (\d+)$", configured, re.MULTILINE)
    port, scaled = free_port(), f"maxmemory {int(maxmemory) // SCALE}"
    with running_valkey("prod", "events", tmp_path / "fits", port, scaled):
        asyncio.run(append_usage(port))
        asyncio.run(publish(port, MAX_LENGTH // SCALE))
    with running_valkey("prod", "events", tmp_path / "full", port, scaled):
        asyncio.run(append_usage(port))
        with pytest.raises(MessagesRefusedError, match="used memory > 'maxmemory'"):
            asyncio.run(publish(port, 2 * MAX_LENGTH // SCALE))


def test_a_full_event_store_refuses_writes_and_a_full_cache_evicts_keys(tmp_path: Path) -> None:
    port = free_port()
    with running_valkey("prod", "events", tmp_path / "events", port, "maxmemory 4mb"):
        publisher = connected(port, "conversation-service", "events")
        with pytest.raises(ResponseError, match=r"used memory > 'maxmemory'"):
            append(publisher, 100)
    with running_valkey("dev", "redis", tmp_path / "cache", port, "maxmemory 4mb"):
        identity = connected(port, "identity-service", "redis")
        assert all(identity.set(f"identity-service:{number}", "x" * 100_000) for number in range(100))
