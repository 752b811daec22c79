from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from voice_policies import Duration
from voice_saga import BarrierClosedError, Entry, JournalEngine, Message, Reply, SqliteJournal, StepContext
from voice_saga.barrier import once, once_sqlite
from voice_saga.definition import Plan
from voice_saga.journal import Claim, Journal
from voice_saga.migrations import scripts
from voice_saga.postgresql import PostgresqlJournal, admit, publish
from voice_saga.progress import Progress, following
from voice_saga.redis_streams import RedisStreams
from voice_saga.transport import Outbox, consume, delivers, starts

from tests.saga.backends import Backend
from tests.saga.definitions import Log, eventually, saga, step

PLAN = Plan("order", 1, (("a",), ("b", "c", "d"), ("e",)), frozenset("abde"))
Once = Callable[[StepContext], Awaitable[Any]]


def context(branch: Any = "action", name: str = "pay") -> StepContext:
    return StepContext("saga-1", "order", name, branch, None, {})


@pytest.mark.parametrize("failing", [1, 2, 3], ids=["pay", "ship", "thank"])
async def test_s1_only_steps_that_may_have_run_are_compensated_and_in_reverse_order(
    backend: Backend, failing: int
) -> None:
    names = ["reserve", "pay", "ship", "thank"]
    log = Log()
    log.hangs(names[failing])
    short: Any = {"attempt_timeout": Duration("500ms"), "timeout": Duration("2s"), "retries": 0}
    policy = saga(*(step(name, **(short if name == names[failing] else {})) for name in names))
    async with backend([log.definition(policy)]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    assert record.state == "compensated"
    ran = names[: failing + 1]
    assert log.done == ran + [f"undo-{name}" for name in reversed(ran)]


def test_s1_every_saga_completes_or_undoes_each_begun_step_that_has_a_compensation() -> None:
    """Follow every path through the plan, step by step."""
    ends: set[str] = set()
    paths: list[list[Entry]] = [[]]
    while paths:
        entries = paths.pop()
        progress = Progress.of(entries)
        if after := following(PLAN, progress):
            paths.append(entries + after)
        elif progress.undoing:
            paths.append([*entries, Entry("undone", progress.undoing)])
        elif progress.running:
            first = progress.running[0]
            paths += [[*entries, Entry("succeeded", first)], [*entries, Entry("failed", first, "no")]]
        else:
            ends.add(progress.state)
            undone = [entry.step for entry in entries if entry.kind == "undone"]
            ran = {entry.step for entry in entries if entry.kind == "began"}
            began = [name for name in PLAN.steps if name in ran & PLAN.compensated]
            assert undone == ([] if progress.state == "completed" else began[::-1])
    assert ends == {"completed", "compensated"}


@pytest.fixture(params=["postgresql", "sqlite"])
def effects(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[str]], Any]:
    """Makes an effect that runs through the barrier of a real database. The effect adds its branch to a list."""
    if request.param == "sqlite":
        return lambda done: _SqliteEffects(tmp_path / "own.db", done)
    dsn = request.getfixturevalue("database")
    return lambda done: _PostgresqlEffects(dsn, done)


class _PostgresqlEffects:
    def __init__(self, dsn: str, done: list[str]) -> None:
        self._dsn, self._done = dsn, done

    async def __call__(self, context: StepContext) -> Any:
        async def work() -> Any:
            self._done.append(context.branch)
            return {"of": context.branch}

        connection = await asyncpg.connect(self._dsn)
        try:
            return await once(connection, context, work)
        finally:
            await connection.close()


class _SqliteEffects:
    def __init__(self, path: Path, done: list[str]) -> None:
        self._connection, self._done = sqlite3.connect(path), done
        self._connection.executescript(scripts("sqlite")["0003_barriers.sql"])

    async def __call__(self, context: StepContext) -> Any:
        def work() -> Any:
            self._done.append(context.branch)
            return {"of": context.branch}

        return once_sqlite(self._connection, context, work)


async def test_s2_an_effect_is_applied_once_and_a_second_call_returns_its_result(effects: Any) -> None:
    done: list[str] = []
    through = effects(done)
    for branch in ("action", "compensation"):
        for _ in range(3):
            assert await through(context(branch)) == {"of": branch}
    assert done == ["action", "compensation"]


async def test_s2_a_compensation_before_its_action_has_no_effect_and_the_late_action_is_refused(effects: Any) -> None:
    done: list[str] = []
    through = effects(done)
    for _ in range(2):
        assert await through(context("compensation")) is None
        with pytest.raises(BarrierClosedError, match="saga-1/pay/action"):
            await through(context("action"))
    assert done == []
    assert await through(context("action", "ship")) == {"of": "action"}, "the barrier is per step"


async def test_s2_a_compensation_waits_until_its_running_action_ends(database: str) -> None:
    done: list[str] = []
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        in_flight.set()
        await go_on.wait()
        done.append("action")

    async with asyncpg.create_pool(database) as pool, pool.acquire() as connection:
        action = asyncio.create_task(once(connection, context("action"), slow))
        await in_flight.wait()
        compensation = asyncio.create_task(_PostgresqlEffects(database, done)(context("compensation")))
        await asyncio.sleep(0.2)
        assert not compensation.done()
        go_on.set()
        await asyncio.gather(action, compensation)
    assert done == ["action", "compensation"]


async def test_s5_a_saga_whose_compensation_keeps_failing_is_parked_and_can_be_resumed(backend: Backend) -> None:
    log = Log()
    log.fails("pay", lambda: ValueError("no"))
    log.fails("undo-pay", lambda: ConnectionError("gone"))
    async with backend([log.definition(saga(step("reserve"), step("pay")))]) as engine:
        saga_id = await engine.start("order")
        for _ in range(3):
            record = await engine.wait(saga_id, 60)
            assert record.state == "parked"
            assert record.reason == "compensation_failed: pay: ConnectionError: gone"
            await engine.resume(saga_id)
        log.fails("undo-pay", lambda: ConnectionError("gone"), times=0)
        await eventually(lambda: _has_ended(engine, saga_id))
    assert log.done[-1] == "undo-reserve"


async def _has_ended(engine: Any, saga_id: str) -> bool:
    """True if the saga has ended. If the compensation failed again before the test repaired it, resume the saga."""
    record = await engine.wait(saga_id, 60)
    if record.state == "parked":
        await engine.resume(saga_id)
    return bool(record.ended)


async def test_s6_a_compensation_continues_after_its_worker_has_stopped(backend: Backend) -> None:
    log = Log()
    log.fails("ship", lambda: ValueError("no"))
    log.hangs("undo-pay")
    policy = saga(step("pay", attempt_timeout=Duration("2s"), timeout=Duration("5s")), step("ship"))
    async with backend([log.definition(policy)]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _contains(log, "undo-pay"))
    log.fails("undo-pay", ValueError, times=0)
    async with backend([log.definition(policy)]) as engine:
        assert (await engine.wait(saga_id, 60)).state == "compensated"
    assert log.done.count("undo-pay") >= 2


async def test_s6_the_timeout_of_a_saga_passes_even_while_no_worker_runs(journal: Journal) -> None:
    log = Log()
    times: Any = {"attempt_timeout": Duration("100ms"), "timeout": Duration("300ms")}
    definition = log.definition(saga(step("pay", **times), timeout="300ms"))
    await journal.open(worker=False)
    claim = Claim(
        "saga-1", "order", 1, definition.plan.fingerprint, None, "", 1, [Entry("started"), Entry("began", "pay")]
    )
    await journal.start(claim, None, 0.0)
    await asyncio.sleep(0.4)
    async with JournalEngine(journal, [definition]) as engine:
        record = await engine.wait("saga-1", 30)
    assert (record.state, record.reason) == ("compensated", "pay: TimeoutError: the saga's timeout of 300ms has passed")
    assert log.done == ["undo-pay"], "the step may have run before, and does not run again"


async def _contains(log: Log, name: str) -> bool:
    return name in log.done


async def test_s7_a_saga_without_its_definition_is_parked_with_advice(backend: Backend) -> None:
    log = Log()

    async def later(_: StepContext) -> Any:
        return Reply.LATER

    log.does("pay", later)
    async with backend([log.definition(saga(step("pay"), version=3))]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _waits(engine, saga_id))
    async with backend([log.definition(saga(step("pay"), version=4))]) as engine:
        await engine.compensate(saga_id)
        record = await engine.wait(saga_id, 60)
    assert record.state == "parked"
    assert "version 3, which the worker does not have (its versions: 4); deploy that version" in record.reason


async def _waits(engine: Any, saga_id: str) -> bool:
    return bool((await engine.show(saga_id)).state == "waiting")


OUTCOMES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "x"]), st.sampled_from(["ok", "again", "no"])), min_size=0, max_size=8
)


async def _events_in_any_order(tmp_path: Path, outcomes: list[tuple[str, str]], random: Random) -> None:
    log = Log()

    async def later(_: StepContext) -> Any:
        return Reply.LATER

    names = ["a", "b", "c"]
    for name in names:
        log.does(name, later)
    deliveries = [*outcomes, *((name, "ok") for name in names)]
    first: dict[str, str] = {}
    for name, outcome in deliveries:
        first.setdefault(name, outcome)
    policy = saga(step("a"), step("b", with_previous=True), step("c"))
    file = tmp_path / f"{random.getrandbits(64)}.db"
    async with JournalEngine(SqliteJournal(file), [log.definition(policy)], poll_interval=0.01) as engine:
        saga_id = await engine.start("order")
        for name, outcome in deliveries:
            error = outcome if outcome == "no" else None
            await engine.deliver(saga_id, name, outcome, error=error)
            if random.random() < 0.3:
                await asyncio.sleep(random.random() * 0.01)
        record = await engine.wait(saga_id, 60)
        for name, outcome in deliveries:
            await engine.deliver(saga_id, name, outcome)
        after = await engine.show(saga_id)
        assert (after.state, len(after.entries), after.updated_at) == (
            record.state,
            len(record.entries),
            record.updated_at,
        )
    refused = [name for name in ("a", "b") if first[name] == "no"] or [n for n in ("c",) if first[n] == "no"]
    assert record.state == ("compensated" if refused else "completed")
    failed = {entry.step for entry in record.entries if entry.kind == "failed"}
    assert failed <= {*refused}, "the first failure ends the wait for the other outcomes"
    assert bool(failed) == bool(refused)
    succeeded = {entry.step: entry.data for entry in record.entries if entry.kind == "succeeded"}
    assert all(first[name] == data for name, data in succeeded.items())
    assert len(record.entries) == len({(entry.kind, entry.step) for entry in record.entries})


def test_s9_only_the_first_outcome_of_each_step_counts(tmp_path: Path) -> None:
    @settings(max_examples=40)
    @given(OUTCOMES, st.randoms(use_true_random=False))
    def run(outcomes: list[tuple[str, str]], random: Random) -> None:
        asyncio.run(_events_in_any_order(tmp_path, outcomes, random))

    run()


async def test_s9_a_saga_completes_over_redis_streams_that_deliver_every_message_twice(
    database: str, redis_port: int
) -> None:
    """Upload event → saga → command through the outbox → a consumer handles it once → reply → the saga continues."""
    log, handled = Log(), []
    pool = await asyncpg.create_pool(database)

    async def ask(context: StepContext) -> Any:
        context.publish("embedding.wanted", {"saga_id": context.saga_id, "step": context.step})
        return Reply.LATER

    async def embed(message: Message) -> None:
        async with pool.acquire() as connection, connection.transaction():
            if await admit(connection, "embedder", message.id):
                handled.append(message.id)
                reply = {**message.payload, "result": len(handled)}
                await publish(connection, Message(f"{message.id}/reply", "embedding.made", reply))

    log.does("embed", ask)
    redis = Redis(port=redis_port)
    transport = Twice(redis)
    journal = PostgresqlJournal(database)
    async with JournalEngine(
        journal, [log.definition(saga(step("embed"), step("store")))], poll_interval=0.02
    ) as engine:
        handlers = {"document.uploaded": starts(engine, "order"), "embedding.made": delivers(engine)}
        work = [
            Outbox(journal, transport, poll_interval=0.02).run(),
            consume(transport, "indexing-service", handlers),
            consume(transport, "embedder", {"embedding.wanted": embed}),
        ]
        tasks = [asyncio.create_task(each) for each in work]
        uploads = [Message(f"upload-{number}", "document.uploaded", {"document": number}) for number in range(10)]
        await transport.send(uploads)
        await eventually(lambda: _all_completed(engine, [upload.id for upload in uploads]), 60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await redis.aclose()
    await pool.close()
    assert sorted(handled) == sorted(f"upload-{number}/embed/action/0" for number in range(10))
    assert sorted(log.done) == ["embed"] * 10 + ["store"] * 10


class Twice(RedisStreams):
    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, block=0.02)

    async def send(self, messages: Any) -> None:
        await super().send(messages)
        await super().send(messages[::-1])


async def _all_completed(engine: Any, ids: list[str]) -> bool:
    return {summary.id for summary in await engine.list(state="completed")} >= {*ids}


def test_s10_the_order_in_which_parallel_steps_end_does_not_change_the_later_entries() -> None:
    begun = [Entry("started"), Entry("began", "a"), Entry("succeeded", "a"), *(Entry("began", n) for n in "bcd")]
    mixed, fine = {"b": "succeeded", "c": "failed", "d": "failed"}, dict.fromkeys("bcd", "succeeded")
    for outcomes, end in ((mixed, "compensated"), (fine, "completed")):
        followed = set()
        for order in permutations(outcomes):
            ended: list[Any] = [Entry(outcomes[name], name, f"{name} says so") for name in order]  # type: ignore[arg-type]  # the outcomes are kinds of entries
            entries = [*begun, *ended]
            while after := following(PLAN, progress := Progress.of(entries)):
                entries += after
                entries += [Entry("undone", each.step) for each in after if each.kind == "undoing"]
                entries += [Entry("succeeded", each.step) for each in after if each.kind == "began"]
            followed.add((progress.state, progress.reason, tuple(e for e in entries[len(begun) + 3 :])))
        ((state, _, entries_after),) = followed
        assert state == end
        undone = [entry.step for entry in entries_after if entry.kind == "undone"]
        assert undone == (["d", "b", "a"] if end == "compensated" else []), "c has no compensation"
