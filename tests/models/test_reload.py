from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from voice_models import ModelRefusedError, ModelTransport
from voice_models import fake_answers as fake
from voice_models.fake_provider import FakeProvider
from voice_policies import OutputLimit
from voice_runtime.testing import FakeClock

from tests.bundles import mount
from tests.models.routes import (
    ANSWER,
    PATIENT,
    QUESTION,
    ROUTE,
    ask,
    budget,
    routed,
    served_elsewhere,
    service,
    sync_sdk,
    texts_sync,
)


async def test_cooldowns_and_budgets_survive_a_reload(tmp_path: Path, clock: FakeClock) -> None:
    budgeted = {"budgets": ("minute",)}
    made = service(tmp_path, clock, models={"budgets": {"minute": budget(500)}}, route=budgeted)
    made.a.script = lambda _: fake.error(429, headers={"retry-after": "9"})
    made.b.script = lambda _: fake.chat_stream(ANSWER, "B", tokens=(300, 150))
    assert await ask(made.sdk()) == f"{ANSWER}B"
    changed = {**budgeted, "output_limit": OutputLimit(max_tokens=20)}
    mount(tmp_path / "policy", routed(tmp_path, models={"budgets": {"minute": budget(520)}}, route=changed))
    assert made.runtime.runtime.reload()
    assert await ask(made.sdk()) == f"{ANSWER}B"
    assert made.b.exchanges[-1].request.json()["max_completion_tokens"] == 20
    assert made.calls == (1, 2)
    with pytest.raises(ModelRefusedError, match="budget_exceeded"):
        await ask(made.sdk())


def test_threads_share_one_budget(tmp_path: Path) -> None:
    provider = fake.chat_stream("x", tokens=(50, 50))
    with served_elsewhere(FakeProvider(lambda _: provider)) as addresses:
        limits = {"timeout": PATIENT, "budgets": ("minute",)}
        made = service(tmp_path, None, models={"budgets": {"minute": budget(1000)}}, route=limits, addresses=addresses)
        client = sync_sdk(made)

        def asked(_: int) -> bool:
            try:
                return list(texts_sync(client)) == ["x"]
            except ModelRefusedError:
                return False

        with ThreadPoolExecutor(8) as threads:
            answered = list(threads.map(asked, range(40)))
        client.close()
    assert 0 < sum(answered) <= 10
    assert made.held == 100 * sum(answered)
    assert made.is_settled()


async def test_a_call_follows_the_bundle_that_is_loaded_while_its_body_is_read(
    tmp_path: Path, clock: FakeClock
) -> None:
    made = service(tmp_path, clock)

    async def body() -> AsyncIterator[bytes]:
        models, route = {"budgets": {"new": budget(520)}}, {"budgets": ("new",)}
        mount(tmp_path / "policy", routed(tmp_path, models=models, route=route))
        assert made.runtime.runtime.reload()
        yield json.dumps({"messages": QUESTION, "stream": True}).encode()

    async with httpx.AsyncClient(transport=ModelTransport(made.runtime, ROUTE, made.network)) as client:
        headers = {"content-type": "application/json"}
        answer = await client.post("http://ignored/v1/chat/completions", content=body(), headers=headers)
    assert answer.status_code == 200
    assert made.runtime.budgets.statistics["new"].admitted == 1
