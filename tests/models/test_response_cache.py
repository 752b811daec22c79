from __future__ import annotations

from pathlib import Path

import pytest
from voice_models import fake_answers as fake
from voice_models.request import PROMPT_VERSION
from voice_policies import Duration, ResponseCache
from voice_runtime import Caller
from voice_runtime.redis import RedisStore, single

from tests.bundles import operation
from tests.models.routes import QUESTION, Service, ask, service
from tests.redis_servers import Server

STORE = "events.reserve"


@pytest.fixture
def made(tmp_path: Path, server: Server) -> Service:
    store = RedisStore(lambda: single(server.url, socket_connect_timeout=60))
    cache = ResponseCache(max_age=Duration("1h"), store=STORE)
    inbound = (operation("chat", deadline=Duration("1h")),)
    return service(tmp_path, None, stores={STORE: store}, route={"cache": cache}, inbound=inbound)


async def asked(made: Service, tenant: str = "acme", user: str = "ann", version: str = "1") -> str:
    async with made.runtime.runtime.request("chat", Caller(tenant=tenant, user=user)):
        answer = await ask(made.sdk(), {PROMPT_VERSION: version})
    await made.runtime.drain()
    return answer


async def test_the_cache_answers_an_equal_request_of_the_same_tenant_user_and_prompt_version(made: Service) -> None:
    assert [await asked(made) for _ in range(3)] == ["the-answer-of-A"] * 3
    assert made.calls == (1, 0)
    assert made.runtime.statistics.cache_hits["llm.generate"] == 2
    assert PROMPT_VERSION not in made.a.exchanges[0].request.headers


async def test_a_cached_answer_meets_the_objective_of_the_route(made: Service) -> None:
    for _ in range(3):
        await asked(made)
    assert made.runtime.statistics.cache_hits["llm.generate"] == 2
    assert made.runtime.statistics.calls == {("llm.generate", "successful"): 3}
    assert made.runtime.statistics.good_calls["llm.generate"] == 3


async def test_mc25_another_tenant_user_or_prompt_version_misses_the_cache(made: Service) -> None:
    await asked(made)
    await asked(made, tenant="other")
    await asked(made, user="bob")
    await asked(made, version="2")
    assert made.calls == (4, 0)


async def test_an_incomplete_answer_is_not_cached(made: Service) -> None:
    made.a.script = lambda _: fake.streamed([fake.delta("x"), fake.finish("length")])
    await asked(made)
    await asked(made)
    assert made.calls == (2, 0)


async def test_a_key_of_the_cache_contains_no_tenant_and_expires(made: Service, server: Server) -> None:
    await asked(made)
    (key,) = server.ask("KEYS", "*")
    assert key.startswith("model-adapter:model-answer:")
    assert "acme" not in key
    assert 0 < server.ask("TTL", key) <= 3600


async def test_a_cache_without_a_connected_store_holds_no_answers(made: Service, tmp_path: Path) -> None:
    unconnected = service(
        tmp_path / "unconnected", None, route={"cache": ResponseCache(max_age=Duration("1h"), store=STORE)}
    )
    assert [await ask(unconnected.sdk()) for _ in range(2)] == ["the-answer-of-A"] * 2
    assert unconnected.calls == (2, 0)
    assert made.calls == (0, 0)


@pytest.mark.parametrize("read", [0, 1], ids=["before the first chunk", "before the last chunk"])
async def test_a_part_of_an_answer_is_not_cached_if_its_caller_closes_the_stream(made: Service, read: int) -> None:
    whole = b"".join(step for step in fake.chat_stream("one ", "two").steps if isinstance(step, bytes))
    end = whole.rindex(b"data:")
    made.a.script = lambda _: fake.streamed([whole[:end], whole[end:]])
    async with made.runtime.runtime.request("chat", Caller(tenant="acme", user="ann")):
        stream = await made.sdk().chat.completions.create(
            model="any", messages=QUESTION, stream=True, extra_headers={PROMPT_VERSION: "1"}
        )
        for _ in range(read):
            await anext(stream)
        await stream.close()
    await made.runtime.drain()
    assert [await asked(made) for _ in range(2)] == ["one two"] * 2
    assert made.calls == (2, 0)
