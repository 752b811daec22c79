from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from voice_policies import Duration
from voice_runtime import Caller, Runtime
from voice_saga import (
    Entry,
    JournalEngine,
    JournalUnavailableError,
    Reply,
    SagaConflictError,
    SagaSummary,
    SqliteJournal,
    State,
    StepContext,
)
from voice_saga.barrier import once
from voice_saga.journal import Claim, Journal, Outcome
from voice_saga.postgresql import PostgresqlJournal

from tests.bundles import bundle, mount, operation
from tests.loopback import free_port
from tests.saga.crash_worker import EFFECTS
from tests.saga.definitions import Log, eventually, saga, step

ROOT = Path(__file__).parents[2]


async def test_an_unreachable_journal_is_reported() -> None:
    engine = JournalEngine(PostgresqlJournal(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"))
    with pytest.raises(JournalUnavailableError, match="PostgreSQL: "):
        await engine.open()


async def test_two_workers_share_the_sagas_and_run_each_saga_once(database: str) -> None:
    logs = [Log(), Log()]

    async def slow(_: StepContext) -> None:
        await asyncio.sleep(0.02)

    for log in logs:
        log.does("pay", slow)
    policy = saga(step("pay"), step("ship"))
    journal, *workers = (
        JournalEngine(PostgresqlJournal(database), [log.definition(policy)], poll_interval=0.02, concurrency=4)
        for log in (*logs[:1], *logs)
    )
    await journal.open()
    ids = [await journal.start("order") for _ in range(40)]
    async with workers[0], workers[1]:
        for saga_id in ids:
            assert (await journal.wait(saga_id, 60)).state == "completed"
    await journal.close()
    taken = [sorted({context.saga_id for context in log.contexts}) for log in logs]
    assert all(taken)
    assert sorted(taken[0] + taken[1]) == sorted(ids)


async def test_a_sqlite_worker_takes_over_the_sagas_of_a_dead_process(
    tmp_path: Path,
) -> None:
    log = Log()
    path = tmp_path / "sagas.db"
    policy = saga(step("pay"), step("ship"))
    dead = JournalEngine(SqliteJournal(path), [log.definition(policy)])
    await dead.__aenter__()
    saga_id = await dead.start("order", saga_id="held")
    for task in (*dead._loops, *(task for *_, task in dead._driving.values())):  # noqa: SLF001  # a crash would end them in the same way
        task.cancel()
    await dead.journal.close()
    async with JournalEngine(SqliteJournal(path), [log.definition(policy)], lease=1000) as alive:
        assert (await alive.wait(saga_id, 20)).state == "completed"


async def test_a_second_sqlite_worker_is_refused(tmp_path: Path) -> None:
    definition = Log().definition(saga(step("pay")))
    first, second = (JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition]) for _ in range(2))
    async with first:
        with pytest.raises(JournalUnavailableError, match="another process runs the sagas of this file"):
            await second.__aenter__()


async def test_a_saga_whose_step_kills_its_workers_is_parked(database: str) -> None:
    log = Log()
    engine = JournalEngine(PostgresqlJournal(database), [log.definition(saga(step("pay")))])
    await engine.open()
    saga_id = await engine.start("order")
    for _ in range(10):
        assert await engine.journal.claim("dies", 1, lease=0.0)
    async with JournalEngine(PostgresqlJournal(database), [log.definition(saga(step("pay")))]) as worker:
        record = await worker.wait(saga_id, 20)
    await engine.close()
    assert record.state == "parked"
    assert "without completing pay" in record.reason
    assert log.done == []


async def test_sagas_that_wait_for_a_free_worker_are_claimed_only_once(journal: Journal) -> None:
    log = Log()
    async with JournalEngine(journal, [log.definition(saga(step("pay")))], concurrency=1, max_claims=1) as engine:
        ids = [await engine.start("order") for _ in range(3)]
        assert [(await engine.wait(each, 60)).state for each in ids] == ["completed"] * 3


async def test_a_saga_left_by_an_older_worker_is_parked_after_ten_minutes(
    database: str,
) -> None:
    newer, older = Log(), Log()

    async def later(_: StepContext) -> Reply:
        return Reply.LATER

    newer.does("pay", later)
    policy = saga(step("pay", timeout=Duration("2h")), version=2, timeout="3h")
    connection = await asyncpg.connect(database)

    async def minutes_pass(minutes: int) -> None:
        for ago in ("UPDATE saga.sagas SET updated_at = updated_at", "UPDATE saga.entries SET at = at"):
            await connection.execute(f"{ago} - make_interval(mins => $1)", minutes)
        await connection.execute("UPDATE saga.sagas SET due = clock_timestamp() WHERE owner IS NULL")

    async with JournalEngine(PostgresqlJournal(database), [newer.definition(policy)]) as worker:
        saga_id = await worker.start("order")
        await eventually(lambda: _is(worker, saga_id, "waiting"))
    definition = older.definition(saga(step("pay"), version=1))
    async with JournalEngine(PostgresqlJournal(database), [definition], poll_interval=0.02) as worker:
        await minutes_pass(11)
        await eventually(lambda: _left(worker, saga_id))
        await minutes_pass(9)
        await asyncio.sleep(0.3)
        assert (await worker.show(saga_id)).state == "waiting"
        await minutes_pass(2)
        record = await worker.wait(saga_id, 30)
    await connection.close()
    assert record.state == "parked"
    assert "began under order version 2, which the worker does not have" in record.reason
    assert [entry.kind for entry in record.entries].count("left") == 1


async def _is(engine: JournalEngine, saga_id: str, state: str) -> bool:
    return (await engine.show(saga_id)).state == state


async def _left(engine: JournalEngine, saga_id: str) -> bool:
    record = await engine.show(saga_id)
    assert record.state == "waiting", record.reason
    return any(entry.kind == "left" for entry in record.entries)


async def test_the_barrier_shares_the_transaction_of_the_effect(database: str) -> None:
    context = StepContext("saga-1", "order", "pay", "action", None, {})
    async with asyncpg.create_pool(database) as pool:
        await pool.execute(EFFECTS)

        async def break_after_the_effect(connection: Any) -> None:
            await connection.execute("INSERT INTO effects VALUES ('saga-1', 'pay', 'action')")
            raise OSError("the connection broke")

        async with pool.acquire() as connection:
            with pytest.raises(OSError, match="broke"):
                await once(connection, context, lambda: break_after_the_effect(connection))
        assert await pool.fetchval("SELECT count(*) FROM effects") == 0
        assert await pool.fetchval("SELECT count(*) FROM saga.barriers") == 0


async def test_a_saga_outlives_the_deadline_of_the_request_that_starts_it(journal: Journal, tmp_path: Path) -> None:
    inbound = (operation("run", deadline=Duration("300ms")),)
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=inbound)))
    log = Log()

    async def slow_and_failing(_: StepContext) -> None:
        await asyncio.sleep(0.5)
        raise ValueError("no such street")

    log.does("ship", slow_and_failing)
    async with JournalEngine(journal, [log.definition(saga(step("pay"), step("ship")))]) as engine:
        async with runtime.request("run", Caller()):
            saga_id = await engine.start("order")
        record = await engine.wait(saga_id, 20)
    assert (record.state, record.reason) == ("compensated", "ship: ValueError: no such street")
    assert log.done == ["pay", "ship", "undo-ship", "undo-pay"]


async def test_an_intervention_ends_the_running_action_before_a_compensation_begins(journal: Journal) -> None:
    log = Log()

    async def hang(_: StepContext) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.done.append("ended")

    log.does("pay", hang)
    policy = saga(step("pay", attempt_timeout=Duration("20s"), timeout=Duration("50s")))
    async with JournalEngine(journal, [log.definition(policy)], poll_interval=0.05) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _has_begun(log))
        await engine.compensate(saga_id)
        assert (await engine.wait(saga_id, 20)).state == "compensated"
    assert log.done == ["pay", "ended", "undo-pay"]


async def test_a_held_saga_cannot_be_claimed_and_a_renewal_keeps_it(journal: Journal) -> None:
    await journal.open(worker=True)
    claim = Claim("saga-1", "order", 1, "f", None, "", 1, [Entry("started")])
    await journal.start(claim, "me", 0.3)
    assert await journal.claim("other", 5, 30.0) == []
    assert await journal.renew([claim], 30.0) == {"saga-1"}
    await asyncio.sleep(0.4)
    assert await journal.claim("other", 5, 30.0) == []
    await journal.append(claim, [], "running", release=0.0)
    assert [taken.id for taken in await journal.claim("other", 5, 30.0)] == ["saga-1"]
    await journal.close()


@pytest.mark.parametrize("write", ["start", "claim", "append"])
async def test_a_saga_completes_after_a_lost_answer_to_a_journal_write(
    journal: Journal, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has stored the write. The worker gets an error, and does not know that it holds the saga."""
    log, lost = Log(), 0
    whole = getattr(journal, write)

    async def lose_the_first_answer(*arguments: Any, **options: Any) -> Any:
        nonlocal lost
        answer = await whole(*arguments, **options)
        if answer != [] and not lost:
            lost += 1
            raise JournalUnavailableError("the connection broke before the answer")
        return answer

    monkeypatch.setattr(journal, write, lose_the_first_answer)
    definition = log.definition(saga(step("pay"), step("ship")))
    async with JournalEngine(journal, [definition], lease=0.3, poll_interval=0.02) as engine:
        if write == "start":
            with pytest.raises(JournalUnavailableError):
                await engine.start("order", saga_id="saga-1")
        else:
            by_another = Claim("saga-1", "order", 1, definition.plan.fingerprint, None, "", 0, [Entry("started")])
            assert await journal.start(by_another, None, 0.0)
        assert (await engine.wait("saga-1", 20)).state == "completed"
    assert lost == 1


class CountingJournal(PostgresqlJournal):
    writes = 0

    async def start(self, *arguments: Any) -> bool:
        self.writes += 1
        return await super().start(*arguments)

    async def append(self, *arguments: Any, **options: Any) -> None:
        self.writes += 1
        await super().append(*arguments, **options)


async def test_a_parked_saga_stays_parked_after_an_interrupted_intervention(journal: Journal) -> None:
    """An operator's command seizes the saga, and is killed."""
    log = Log()
    log.fails("pay", lambda: ValueError("no"))
    log.fails("undo-pay", lambda: ValueError("no"))
    async with JournalEngine(journal, [log.definition(saga(step("pay")))], poll_interval=0.02) as engine:
        saga_id = await engine.start("order")
        record = await engine.wait(saga_id, 30)
        assert await journal.seize(saga_id, "somebody", 0.05)
        await eventually(lambda: _cannot_be_claimed(journal))
        after = await engine.show(saga_id)
    assert (after.state, len(after.entries)) == (record.state, len(record.entries)) == ("parked", len(record.entries))


async def test_a_waiting_saga_still_waits_after_a_refused_intervention(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator sees a parked saga. At the intervention the saga is waiting."""
    log = Log()
    log.does("pay", _later)
    summary = journal.summary

    async def look(saga_id: str) -> SagaSummary | None:
        seen = await summary(saga_id)
        return seen and replace(seen, state="parked")

    async with JournalEngine(journal, [log.definition(saga(step("pay")))], poll_interval=0.02) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _is_in(journal, saga_id, "waiting"))
    async with JournalEngine(journal) as operator:
        with monkeypatch.context() as patched:
            patched.setattr(journal, "summary", look)
            with pytest.raises(SagaConflictError, match="is waiting: it cannot be"):
                await operator.resume(saga_id)
        assert (await operator.show(saga_id)).state == "waiting"


async def _later(_: StepContext) -> Reply:
    return Reply.LATER


async def _is_in(journal: Journal, saga_id: str, state: State) -> bool:
    summary = await journal.summary(saga_id)
    return summary is not None and summary.state == state


async def _cannot_be_claimed(journal: Journal) -> bool:
    await asyncio.sleep(0.2)
    return await journal.claim("nobody", 1, 0.01) == []


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "compensated"])
async def test_a_step_needs_at_most_two_writes(database: str, fails: bool) -> None:
    """A saga of steps in sequence needs one write for its start, and one for each step and each compensation."""
    log = Log()
    if fails:
        log.fails("d", lambda: ValueError("no"))
    journal = CountingJournal(database)
    async with JournalEngine(journal, [log.definition(saga(*map(step, "abcd")))]) as engine:
        await engine.wait(await engine.start("order"), 20)
    assert journal.writes == (4 + 1) + (4 if fails else 0)
    assert journal.writes <= 2 * len(log.done)


async def test_a_step_that_takes_longer_than_the_lease_stays_with_its_worker(database: str) -> None:
    log = Log()

    async def slow(_: StepContext) -> None:
        await asyncio.sleep(2)

    log.does("pay", slow)
    workers = [
        JournalEngine(PostgresqlJournal(database), [log.definition(saga(step("pay")))], lease=0.9, poll_interval=0.02)
        for _ in range(2)
    ]
    async with workers[0], workers[1]:
        record = await workers[0].wait(await workers[0].start("order"), 30)
    assert record.state == "completed"
    assert log.done == ["pay"]


async def test_an_outcome_that_arrives_during_a_release_makes_the_saga_due(journal: Journal) -> None:
    """The outcome arrives between the worker's last read and the write that releases the saga."""
    await journal.open(worker=True)
    claim = Claim("saga-1", "order", 1, "f", None, "", 1, [Entry("started"), Entry("began", "pay")])
    await journal.start(claim, "me", 30.0)
    await journal.append(claim, [Entry("waiting", "pay")], "waiting")
    assert await journal.outcomes(claim) == {}
    assert await journal.deliver("saga-1", Outcome("pay", {"receipt": 1}))
    await journal.append(claim, [], "waiting", release=1000.0)
    (taken,) = await journal.claim("other", 5, 30.0)
    assert (await journal.outcomes(taken))["pay"].result == {"receipt": 1}
    await journal.append(taken, [], "waiting", release=1000.0)
    assert await journal.claim("third", 5, 30.0) == [], "an outcome that was read does not make the saga due again"
    await journal.close()


async def test_a_worker_that_stops_during_a_step_releases_the_saga_immediately(journal: Journal) -> None:
    log = Log()
    log.hangs("pay")
    policy = saga(step("pay", attempt_timeout=Duration("20s"), timeout=Duration("50s")))
    async with JournalEngine(journal, [log.definition(policy)], lease=1000.0, grace=0.05) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _has_begun(log))
    log.fails("pay", ValueError, times=0)
    async with JournalEngine(_on_same_store(journal), [log.definition(policy)], lease=1000.0) as engine:
        assert (await engine.wait(saga_id, 20)).state == "completed"
    assert log.done == ["pay", "pay"]


async def _has_begun(log: Log) -> bool:
    return bool(log.done)


def _on_same_store(journal: Journal) -> Journal:
    if isinstance(journal, SqliteJournal):
        return SqliteJournal(journal.path)
    assert isinstance(journal, PostgresqlJournal)
    return journal


KILLED = """
import asyncio, os, signal, sys
from voice_saga import JournalEngine, SqliteJournal
from tests.saga.definitions import Log, saga, step

async def die(_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    log = Log()
    log.does("pay", die)
    definition = log.definition(saga(step("reserve"), step("pay")))
    async with JournalEngine(SqliteJournal(sys.argv[1]), [definition]) as engine:
        await engine.start("order", saga_id="killed")
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_next_process_continues_the_sqlite_journal_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "sagas.db"
    command = [sys.executable, "-c", KILLED, str(path)]
    killed = await asyncio.to_thread(subprocess.run, command, check=False, timeout=300, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    log = Log()
    async with JournalEngine(SqliteJournal(path), [log.definition(saga(step("reserve"), step("pay")))]) as engine:
        assert (await engine.wait("killed", 60)).state == "completed"
    assert log.done == ["pay"], "only the step without a recorded result runs again"
