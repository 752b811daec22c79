from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from voice_models import ModelRefusedError
from voice_models import fake_answers as fake
from voice_models.fake_provider import stall
from voice_models.token_budget import TOKEN_BUDGET, BudgetExceededError, Claim, TokenBudgets
from voice_models.token_window import RETRY_HELD, TokenWindow
from voice_policies import Duration, Ratio
from voice_runtime import Caller, Runtime, SharedStore
from voice_runtime.redis import RedisStore, single
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, mount, operation
from tests.models.routes import Service, ask, budget, deployments, results, routed, service, store_call
from tests.redis_servers import PATIENCE, Server

STORE = "events.reserve"
Make = Callable[[], TokenBudgets]


def connected(server: Server) -> RedisStore:
    # The timeout is long, because a busy machine may take more than a second to connect.
    return RedisStore(lambda: single(server.url, socket_connect_timeout=60))


def claim(tokens: int = 10_000, key: str = "acme", name: str = "minute", **more: Any) -> Claim:
    return Claim(name, budget(tokens, **more), key)


def runtime(tmp_path: Path) -> Runtime:
    return Runtime.load(mount(tmp_path / "policy", routed(tmp_path)))


@pytest.fixture(params=["in the process", "on valkey"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    loaded = runtime(tmp_path)
    if request.param == "in the process":
        return lambda: TokenBudgets(loaded, {})
    server: Server = request.getfixturevalue("server")
    return lambda: TokenBudgets(loaded, {STORE: connected(server)})


async def is_admitted(budgets: TokenBudgets, tokens: int, *claims: Claim) -> bool:
    try:
        await budgets.reserve(claims, tokens, 1.0)
    except BudgetExceededError:
        return False
    return True


async def test_mc20_a_budget_for_10_calls_admits_10_of_50_parallel_calls(make: Make) -> None:
    budgets = make()
    admitted = await asyncio.gather(*(is_admitted(budgets, 1000, claim()) for _ in range(50)))
    assert sum(admitted) == 10


async def test_a_settlement_returns_the_unused_tokens_once(make: Make) -> None:
    budgets = make()
    reservation = await budgets.reserve([claim(1000)], 1000, 1.0)
    assert not await is_admitted(budgets, 1, claim(1000))
    await budgets.settle(reservation, 400)
    await budgets.settle(reservation, 400)
    assert await is_admitted(budgets, 600, claim(1000))
    assert not await is_admitted(budgets, 1, claim(1000))


async def test_each_tenant_and_each_budget_has_its_own_count(make: Make) -> None:
    budgets = make()
    assert await is_admitted(budgets, 1000, claim(1000))
    assert await is_admitted(budgets, 1000, claim(1000, "other"))
    assert await is_admitted(budgets, 1000, claim(1000, name="day"))
    assert not await is_admitted(budgets, 1000, claim(1000))


async def test_a_refusal_holds_no_tokens_and_names_the_budget_that_refused(make: Make) -> None:
    budgets = make()
    small, large = claim(500, name="small"), claim(1000, name="large")
    with pytest.raises(BudgetExceededError) as refused:
        await budgets.reserve([large, small], 600, 1.0)
    assert refused.value.claim == small
    assert await is_admitted(budgets, 1000, large)
    assert await is_admitted(budgets, 500, small)


async def test_a_refusal_names_the_time_until_the_tokens_fit(make: Make) -> None:
    budgets = make()
    reservation = await budgets.reserve([claim(1000)], 1000, 1.0)
    with pytest.raises(BudgetExceededError) as held:
        await budgets.reserve([claim(1000)], 1, 1.0)
    assert held.value.wait == RETRY_HELD
    await budgets.settle(reservation, 1000)
    with pytest.raises(BudgetExceededError) as spent:
        await budgets.reserve([claim(1000)], 1, 1.0)
    assert 0 < spent.value.wait <= 60 * 65 / 64
    with pytest.raises(BudgetExceededError) as never:
        await budgets.reserve([claim(1000)], 1001, 1.0)
    assert never.value.wait == float("inf")


async def test_a_changed_window_begins_a_new_count(make: Make) -> None:
    """A slot lasts 1/64 of its window, so windows of different lengths cannot share their slots."""
    budgets = make()
    minute, hour = claim(1000), claim(1000, window=Duration("1h"))
    assert [await is_admitted(budgets, 1000, each) for each in (minute, hour, hour)] == [True, True, False]


async def test_reserving_and_settling_are_one_round_trip_each(server: Server, tmp_path: Path) -> None:
    budgets = TokenBudgets(runtime(tmp_path), {STORE: connected(server)})
    claims = [claim(), claim(name="day"), claim(key="a", name="quota")]
    await budgets.settle(await budgets.reserve(claims, 10, 1.0), 5)
    server.ask("CONFIG", "RESETSTAT")
    reservation = await budgets.reserve(claims, 10, 1.0)
    await budgets.settle(reservation, 5)
    statistics = server.ask("INFO", "commandstats")
    assert "cmdstat_evalsha:calls=2," in statistics
    assert "cmdstat_eval:" not in statistics


async def test_every_key_of_the_store_expires_and_contains_no_tenant(server: Server, tmp_path: Path) -> None:
    budgets = TokenBudgets(runtime(tmp_path), {STORE: connected(server)})
    await budgets.reserve([claim(key="a-tenant")], 10, 1.0)
    (key,) = server.ask("KEYS", "*")
    assert key.startswith("model-adapter:token-budget:minute:")
    assert "a-tenant" not in key
    assert 0 < server.ask("TTL", key) <= 63


# --- without the store


class Unreachable(SharedStore):
    async def run(self, *_: object) -> int:
        raise ConnectionError


class Silent(SharedStore):
    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def run(self, *_: object) -> int:
        self.is_asked.set()
        await asyncio.Event().wait()
        raise AssertionError


class Slow(SharedStore):
    def __init__(self) -> None:
        self.is_settling, self.may_answer = asyncio.Event(), asyncio.Event()
        self.has_settled = False

    async def run(self, *arguments: object) -> list[int]:
        if "settle" in arguments:
            self.is_settling.set()
            await self.may_answer.wait()
            self.has_settled = True
        return [0, 1]


@pytest.mark.parametrize(("mode", "admitted"), [("local_share", 5), ("closed", 0)])
async def test_without_its_store_a_budget_admits_its_local_share_or_nothing(
    tmp_path: Path, mode: Any, admitted: int
) -> None:
    budgets = TokenBudgets(runtime(tmp_path), {STORE: Unreachable()})
    of_replica = claim(when_store_unavailable=mode, local_share=Ratio("50%"))
    assert sum([await is_admitted(budgets, 1000, of_replica) for _ in range(20)]) == admitted
    assert budgets.statistics["minute"].without_store == 20


async def test_a_settlement_without_its_store_is_counted(tmp_path: Path, server: Server) -> None:
    stores: dict[str, SharedStore] = {STORE: connected(server)}
    budgets = TokenBudgets(runtime(tmp_path), stores)
    reservation = await budgets.reserve([claim()], 1000, 1.0)
    stores[STORE] = Unreachable()
    await budgets.settle(reservation, 10)
    assert budgets.statistics["minute"].without_store == 1


async def test_a_cancelled_reservation_returns_the_tokens_that_another_store_already_holds(
    server: Server, tmp_path: Path
) -> None:
    """The budgets ask the stores in the order of the stores' names, so the silent store is asked last."""
    silent = Silent()
    loaded = Runtime.load(mount(tmp_path / "policy", bundle(store_call(STORE), store_call("events.silent"))))
    budgets = TokenBudgets(loaded, {STORE: connected(server), "events.silent": silent})
    first, second = claim(1000), claim(1000, name="day", store="events.silent")
    reserving = asyncio.ensure_future(budgets.reserve([first, second], 1000, 60.0))
    await silent.is_asked.wait()
    assert not await is_admitted(budgets, 1, first)
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    assert await is_admitted(budgets, 1000, first)


async def test_a_second_cancellation_does_not_stop_the_return_of_the_tokens(tmp_path: Path) -> None:
    other, silent = Slow(), Silent()
    loaded = Runtime.load(mount(tmp_path / "policy", bundle(store_call(STORE), store_call("events.silent"))))
    budgets = TokenBudgets(loaded, {STORE: other, "events.silent": silent})
    claims = [claim(1000), claim(1000, name="day", store="events.silent")]
    reserving = asyncio.ensure_future(budgets.reserve(claims, 1000, 60.0))
    await silent.is_asked.wait()
    reserving.cancel()
    settling = asyncio.ensure_future(other.is_settling.wait())
    await asyncio.wait([reserving, settling], return_when=asyncio.FIRST_COMPLETED)
    assert not reserving.done()
    reserving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reserving
    other.may_answer.set()
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    assert other.has_settled


# --- keys in the process


async def test_max_keys_of_one_budget_does_not_limit_another_budget(tmp_path: Path) -> None:
    budgets = TokenBudgets(runtime(tmp_path), {})
    large, small = claim(1000, name="large"), claim(1000, name="small", max_keys=1)
    assert await is_admitted(budgets, 1000, large)
    assert await is_admitted(budgets, 1000, small)
    assert not await is_admitted(budgets, 1, large)
    assert not await is_admitted(budgets, 1, small)


async def test_a_key_beyond_max_keys_replaces_the_least_recently_used_count(tmp_path: Path) -> None:
    budgets = TokenBudgets(runtime(tmp_path), {})
    acme, other, third = (claim(1000, key, max_keys=2) for key in ("acme", "other", "third"))
    assert [await is_admitted(budgets, 1000, each) for each in (acme, other, acme, third)] == [True, True, False, True]
    assert not await is_admitted(budgets, 1, acme)
    assert await is_admitted(budgets, 1000, other)


# --- expiry


async def test_mc21_a_reservation_that_is_never_settled_frees_its_tokens_at_its_expiry(
    tmp_path: Path, clock: FakeClock
) -> None:
    made = service(tmp_path, clock, models={"budgets": {"day": budget()}}, route={"budgets": ("day",)})
    held = claim(1000)
    await made.runtime.budgets.reserve([held], 1000, total=3.0)
    clock.advance(3.0 + 30.0 - 1)
    assert not await is_admitted(made.runtime.budgets, 1000, held)
    clock.advance(2)
    assert await is_admitted(made.runtime.budgets, 1000, held)


HOLDER = """
import asyncio, sys
from pathlib import Path
from tests.models.test_token_budgets import claim, connected, runtime, STORE
from voice_models.token_budget import TokenBudgets
class Server:
    url = sys.argv[2]
async def hold():
    from voice_policies import Duration
    budgets = TokenBudgets(runtime(Path(sys.argv[1])), {STORE: connected(Server)})
    await budgets.reserve([claim(1000, expiry_margin=Duration("2s"))], 1000, 1.0)
    print("held", flush=True)
    await asyncio.sleep(3600)
asyncio.run(hold())
"""


async def test_mc21_the_reservation_of_a_killed_process_frees_its_tokens_at_its_expiry(
    tmp_path: Path, server: Server
) -> None:
    (tmp_path / "holder").mkdir()
    before = int(server.ask("TIME")[0])
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "holder"), server.url]
    holder = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    after = int(server.ask("TIME")[0])
    holder.kill()
    await holder.wait()
    budgets = TokenBudgets(runtime(tmp_path), {STORE: connected(server)})
    held = claim(1000, expiry_margin=Duration("2s"))
    patience = time.monotonic() + PATIENCE
    while True:
        asked = int(server.ask("TIME")[0])
        admitted = await is_admitted(budgets, 1000, held)
        answered = int(server.ask("TIME")[0])
        if admitted:
            break
        assert asked <= after + 3 + 2, "refused more than a second after the expiry"
        assert time.monotonic() < patience
        await asyncio.sleep(0.05)
    assert answered >= before + 3 - 1, "admitted more than a second before the expiry"


# --- in a call


def with_tenant_budget(tmp_path: Path, clock: FakeClock, tokens: int, **more: Any) -> Service:
    models = {"budgets": {"minute": budget(tokens, **more)}}
    inbound = (operation("chat", deadline=Duration("1h")),)
    return service(tmp_path, clock, models=models, route={"budgets": ("minute",)}, inbound=inbound)


async def test_a_tenant_with_an_exhausted_budget_is_refused_before_sending(tmp_path: Path, clock: FakeClock) -> None:
    made = with_tenant_budget(tmp_path, clock, 120)
    made.a.script = lambda _: fake.streamed([stall])

    async def asked(tenant: str) -> str:
        async with made.runtime.runtime.request("chat", Caller(tenant=tenant)):
            return await ask(made.sdk())

    first = asyncio.ensure_future(asked("acme"))
    await asyncio.sleep(0.01)
    refused, other = await results([asked("acme"), asked("other")])
    assert isinstance(refused, ModelRefusedError)
    assert (refused.error_class, refused.retry_after) == ("budget_exceeded", RETRY_HELD)
    assert isinstance(other, str)
    await first
    assert made.runtime.statistics.calls["llm.generate", "refused"] == 1
    assert made.is_settled()


async def test_a_deployment_with_an_exhausted_budget_is_skipped(tmp_path: Path, clock: FakeClock) -> None:
    found = deployments(tmp_path)
    models = {
        "budgets": {"quota": budget(120, key="deployment")},
        "deployments": {**found, "a": found["a"].model_copy(update={"budgets": ("quota",)})},
    }
    made = service(tmp_path, clock, models=models)
    made.a.script = lambda _: fake.chat_stream("the-answer-of-", "A", tokens=(10, 100))
    assert [await ask(made.sdk()) for _ in range(3)] == ["the-answer-of-A", "the-answer-of-B", "the-answer-of-B"]
    assert made.calls == (1, 2)
    clock.advance(62)
    assert await ask(made.sdk()) == "the-answer-of-A"


# --- counts in the process and in the store


steps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 60), st.booleans(), st.integers(0, 60)), max_size=40)


@given(steps=steps, limit=st.integers(40, 120))
@settings(max_examples=50, deadline=None)
def test_a_rolling_window_never_contains_more_tokens_than_the_limit(
    steps: list[tuple[int, int, bool, int]], limit: int
) -> None:
    window, now, counted = TokenWindow(), 1000.0, []
    for milliseconds, cost, settles, used in steps:
        now += milliseconds / 1000
        if window.reserve(cost, limit, 60.0, now, now + 40.0) == 0.0 and settles:
            window.settle(cost, now + 40.0, min(used, cost), 60.0, now)
            counted.append((now, min(used, cost)))
        assert window.used(60.0, now) <= limit
        for end, _ in counted:
            assert sum(tokens for at, tokens in counted if end - 60.0 < at <= end) <= limit


def script_with_given_time(server: Server) -> Callable[..., list[int]]:
    """The script, changed so that its last argument is the server's time in milliseconds."""
    text = TOKEN_BUDGET.text
    found = "local time = redis.call('TIME')\nlocal now = tonumber(time[1]) + time[2] / 1e6"
    assert text.count(found) == 1
    assert text.count("'PX', ") == 1
    text = text.replace(found, "local now = ARGV[#ARGV] / 1000").replace("'PX', ", "'PX', 3600000 + ")
    script = Redis(port=server.port).register_script(text)
    return lambda *arguments: script(keys=["k"], args=arguments)


@given(steps=steps, limit=st.integers(40, 120))
@settings(max_examples=30, deadline=None)
def test_the_script_in_the_store_counts_exactly_like_the_process(
    running: Server, steps: list[tuple[int, int, bool, int]], limit: int
) -> None:
    running.ask("FLUSHALL")
    script, window, now = script_with_given_time(running), TokenWindow(), 1_800_000_000_000
    for milliseconds, cost, settles, used in steps:
        now += milliseconds
        wait = window.reserve(cost, limit, 64.0, now / 1000, now / 1000 + 40.0) if cost <= limit else None
        if wait is None:
            continue
        refused, answer = script("reserve", cost, 40.0, 0, limit, 64.0, now)
        assert bool(refused) == bool(wait)
        if refused:
            assert answer / 1e6 == pytest.approx(wait, abs=1e-3)
        elif settles:
            window.settle(cost, now / 1000 + 40.0, used, 64.0, now / 1000)
            script("settle", cost, answer, used, limit, 64.0, now)
