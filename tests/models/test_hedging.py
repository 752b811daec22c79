from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from voice_models import ModelAttemptError
from voice_models import fake_answers as fake
from voice_policies import Duration, ModelFallback, ModelHedge, Ratio, RetryBudget
from voice_runtime.testing import FakeClock

from tests.models.routes import Service, budget, deployments, model, service

DELAY = 0.1
ALWAYS = RetryBudget(ratio=Ratio("100%"))


def hedged(
    tmp_path: Path,
    clock: FakeClock,
    *,
    bound: RetryBudget = ALWAYS,
    models: Mapping[str, Any] | None = None,
    **route: Any,
) -> Service:
    made = service(
        tmp_path,
        clock,
        models={
            "models": {"m": model(capabilities=("embeddings",))},
            "budgets": {"minute": budget(1_000)},
            **(models or {}),
        },
        route={
            "capabilities": ("embeddings",),
            "output_limit": None,
            "budgets": ("minute",),
            "hedge": ModelHedge(delay=Duration("100ms"), budget=bound),
            **route,
        },
    )
    answers(made, a=0.0, b=0.0)
    return made


def answers(made: Service, *, a: float, b: float) -> None:
    made.a.script = lambda _: fake.embeddings(1, delay=a)
    made.b.script = lambda _: fake.embeddings(2, delay=b)


async def embed(made: Service) -> int:
    """The number of embeddings in the answer: 1 from A, 2 from B."""
    answer = await made.sdk().embeddings.create(model="any", input="tides", encoding_format="float")
    await made.runtime.drain()
    assert made.is_settled()
    return len(answer.data)


def endings(made: Service) -> list[tuple[str, str]]:
    return [(event.deployment, event.ending) for event in made.ledger.events]


def failed(made: Service, name: str) -> int:
    breaker = made.runtime.runtime.outbound("llm.generate", name).breaker
    assert breaker is not None
    return breaker.failed


async def test_no_second_request_is_sent_if_an_answer_comes_before_the_delay(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.09, b=0.0)
    assert await embed(made) == 1
    assert made.calls == (1, 0)
    assert not made.runtime.statistics.hedges


async def test_the_second_request_wins_and_no_breaker_counts_the_cancelled_first_request(
    tmp_path: Path, clock: FakeClock
) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.6, b=0.05)
    began = clock.monotonic()
    assert await embed(made) == 2
    assert clock.monotonic() - began == pytest.approx(0.15, abs=0.01)
    assert made.a.exchanges[0].ending == "closed_by_client"
    assert sorted(endings(made)) == [("a", "cancelled"), ("b", "finished")]
    assert failed(made, "a") == 0
    assert made.runtime.statistics.hedges == {"llm.generate": 1}
    assert made.runtime.statistics.fallbacks["llm.generate"] == 0
    assert made.runtime.statistics.calls == {("llm.generate", "successful"): 1}


async def test_the_first_request_may_still_answer_before_the_second_request(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.2, b=0.5)
    assert await embed(made) == 1
    assert sorted(endings(made)) == [("a", "finished"), ("b", "cancelled")]
    assert made.b.exchanges[0].ending == "closed_by_client"


async def test_two_simultaneous_answers_give_the_caller_one_answer_and_settle_both_requests(
    tmp_path: Path, clock: FakeClock
) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.2, b=0.1)
    assert await embed(made) in {1, 2}
    assert len(endings(made)) == 2
    assert sum(made.runtime.statistics.calls.values()) == 1


async def test_a_call_falls_back_immediately_if_the_first_request_fails_early(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    made.a.script = lambda _: fake.error(503)
    began = clock.monotonic()
    assert await embed(made) == 2
    assert clock.monotonic() - began < DELAY
    assert not made.runtime.statistics.hedges
    assert made.runtime.statistics.fallbacks["llm.generate"] == 1


async def test_a_failed_second_request_leaves_the_first_one_running(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.3, b=0.0)
    made.b.script = lambda _: fake.error(503)
    assert await embed(made) == 1
    assert sorted(endings(made)) == [("a", "finished"), ("b", "failed")]


async def test_a_failed_first_request_leaves_the_second_one_running(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    made.a.script = lambda _: fake.streamed([b"busy"], first=0.15)
    made.b.script = lambda _: fake.embeddings(2, delay=0.2)
    assert await embed(made) == 2
    assert made.calls == (1, 1)


@pytest.mark.parametrize("second", [0.05, 0.3], ids=["before the first one fails", "after the first one has failed"])
async def test_an_error_counts_for_the_candidate_of_its_request(
    tmp_path: Path, clock: FakeClock, second: float
) -> None:
    """The request is too long for B's context window. C's window is as large as A's, so C may still answer."""
    found, capabilities = deployments(tmp_path), ("embeddings",)
    models = {
        "models": {
            "m": model(capabilities=capabilities),
            "small": model("small", capabilities=capabilities, context_window=512),
        },
        "deployments": {**found, "b": found["b"].model_copy(update={"model": "small"}), "c": found["b"]},
    }
    fallback = ModelFallback(max_attempts=3)
    made = hedged(tmp_path, clock, models=models, candidates=("a", "b", "c"), fallback=fallback)
    too_long = replace(fake.error(400, "context_length_exceeded"), delay=second)
    made.a.script = lambda _: replace(fake.error(503), delay=0.2)
    made.b.script = lambda request: too_long if b'"small"' in request.body else fake.embeddings(2)
    assert await embed(made) == 2
    assert endings(made)[-1] == ("c", "finished")


async def test_the_hedge_counts_as_no_fallback_if_the_first_request_fails(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    made.a.script = lambda _: fake.streamed([b"busy"], first=0.15)
    made.b.script = lambda _: fake.embeddings(2, delay=0.2)
    assert await embed(made) == 2
    assert made.runtime.statistics.fallbacks["llm.generate"] == 0


async def test_a_call_fails_if_both_requests_fail(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    made.a.script = made.b.script = lambda _: fake.streamed([b"busy"], first=0.2)
    with pytest.raises(ModelAttemptError) as error:
        await embed(made)
    assert error.value.error_class == "server_error"
    assert made.calls == (1, 1)
    assert (failed(made, "a"), failed(made, "b")) == (1, 1)


async def test_the_hedging_budget_bounds_the_second_requests(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock, bound=RetryBudget(ratio=Ratio("10%"), reserve=0))
    answers(made, a=0.2, b=0.0)
    answered = [await embed(made) for _ in range(30)]
    assert made.calls[0] == 30
    assert answered.count(2) == made.calls[1] == 3


@pytest.mark.parametrize("distinct", [True, False])
async def test_a_call_without_a_second_candidate_spends_no_hedging_budget(
    tmp_path: Path, clock: FakeClock, *, distinct: bool
) -> None:
    bound, fallback = RetryBudget(ratio=Ratio("1%"), reserve=1), ModelFallback(distinct=distinct)
    made = hedged(tmp_path, clock, bound=bound, fallback=fallback)
    answers(made, a=0.6, b=0.0)
    models = made.runtime.runtime.bundle.models
    assert models is not None
    second = made.runtime.candidates(models, "llm.generate")[1]
    made.runtime.cooldowns.record(second, "rate_limited", 5.0, models.routes["llm.generate"].cooldown)
    assert await embed(made) == 1
    assert made.calls == (1, 0)
    clock.advance(5.0)
    assert await embed(made) == 2


async def test_no_hedge_is_sent_if_the_token_budget_is_too_small(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.2, b=0.0)
    asked = made.sdk().embeddings.create(
        model="any", input="x" * 2_400, encoding_format="float"
    )  # 2,400 bytes ÷ 4 = 600 of the budget's 1,000 tokens
    assert len((await asked).data) == 1
    assert made.calls == (1, 0)
    assert not made.runtime.statistics.hedges


async def test_a_cancelled_call_closes_both_connections(tmp_path: Path, clock: FakeClock) -> None:
    made = hedged(tmp_path, clock)
    answers(made, a=0.6, b=0.6)
    asking = asyncio.create_task(embed(made))
    await asyncio.sleep(0.15)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await made.runtime.drain()
    assert made.is_settled()
    assert sorted(endings(made)) == [("a", "cancelled"), ("b", "cancelled")]
    assert {exchange.ending for exchange in made.a.exchanges + made.b.exchanges} == {"closed_by_client"}
