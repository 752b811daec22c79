from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from voice_saga import Entry, JournalEngine, JournalUnavailableError, LeaseLostError, Message
from voice_saga.journal import Claim, Journal
from voice_saga.postgresql import PostgresqlJournal, migrate
from voice_saga.transport import Outbox

from tests.postgresql_servers import running_postgresql
from tests.saga.crash_worker import DELIVERIES, EFFECTS, STEPS, Job, Wire, definitions, engine_of
from tests.saga.definitions import eventually

ROOT = Path(__file__).parents[2]
ROUNDS = 100
MOST_ROUNDS = 2 * ROUNDS
"""Maximum number of workers. Some workers end before the write at which the test would kill them."""
DRY_RUNS = 3
"""Number of workers that run undisturbed to count their writes."""
KINDS = ("start", "claim", "append", "renew", "deliver", "send", "forget")


@dataclass
class Ledger:
    rounds: int = 0
    kills: int = 0
    started: int = 0
    completed: int = 0
    compensated: int = 0
    lost: int = 0
    """Sagas whose effects do not match their state."""
    doubled: int = 0
    """Repeated effects of an action or a compensation."""
    boundaries: int = 0
    """Number of writes. The test kills a worker before each of these writes, and another worker after it."""
    published: int = 0
    delivered: int = 0
    undelivered: int = 0
    """Published messages that were never delivered."""
    unpublished: int = 0
    """Delivered messages that no saga published."""


async def test_s3_a_worker_killed_at_any_journal_write_loses_and_doubles_no_effect(
    database: str, record_property: Callable[[str, object], None]
) -> None:
    ledger = Ledger()
    async with asyncpg.create_pool(database) as pool:
        await pool.execute(EFFECTS)
        await pool.execute(DELIVERIES)
        await asyncio.to_thread(_kill_workers, database, ledger)
        await _finish_all_sagas(database, pool)
        await _count(pool, ledger)
    record_property("ledger", str(ledger))
    assert ledger.kills == ROUNDS
    assert ledger.completed + ledger.compensated == ledger.started
    assert ledger.completed > ROUNDS / 2 < ledger.compensated
    assert (ledger.lost, ledger.doubled) == (0, 0)
    assert (ledger.undelivered, ledger.unpublished) == (0, 0)
    assert ledger.delivered > ledger.published, (
        "no message was delivered twice, so no sender was killed between the delivery and the deletion of a message"
    )
    assert ledger.boundaries * 2 <= ROUNDS, "the rounds are too few to kill a worker before and after each write"


def _kill_workers(dsn: str, ledger: Ledger) -> None:
    command = [sys.executable, "-m", "tests.saga.crash_worker", dsn]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as zygote:
        orders, answers = zygote.stdin, zygote.stdout
        assert orders is not None
        assert answers is not None

        def run(job: Job) -> dict[str, int] | None:
            orders.write(f"{json.dumps(asdict(job))}\n")
            orders.flush()
            answer = json.loads(answers.readline())
            if isinstance(answer, dict):
                assert answers.readline() == "0\n"
                return answer
            assert answer == signal.SIGKILL
            return None

        counted = [writes for number in range(DRY_RUNS) if (writes := run(Job(-1 - number)))]
        boundaries = [(kind, each + 1) for kind in KINDS for each in range(min(writes[kind] for writes in counted))]
        assert {kind for kind, _ in boundaries} == {*KINDS}
        ledger.boundaries = len(boundaries)
        while ledger.kills < ROUNDS and ledger.rounds < MOST_ROUNDS:
            number = ledger.rounds
            kind, which = boundaries[number // 2 % len(boundaries)]
            ledger.rounds += 1
            ledger.kills += run(Job(number, kind, which, after=bool(number % 2))) is None
        orders.close()


async def _finish_all_sagas(dsn: str, pool: Any) -> None:
    own: list[JournalEngine] = []
    engine = engine_of(PostgresqlJournal(dsn), definitions(pool, own))
    own.append(engine)
    async with engine:
        await eventually(lambda: _nothing_unfinished(engine))
        await Outbox(engine.journal, Wire(pool)).flush()


async def _nothing_unfinished(engine: JournalEngine) -> bool:
    unfinished = await engine.journal.unfinished()
    assert not [state for _, state in unfinished if state == "parked"], await engine.list(state="parked")
    return not unfinished


async def _count(pool: Any, ledger: Ledger) -> None:
    sagas = {row["id"]: row["state"] for row in await pool.fetch("SELECT id, state FROM saga.sagas")}
    effects = await pool.fetch("SELECT saga_id, step, branch, count(*) FROM effects GROUP BY 1, 2, 3")
    ledger.doubled = sum(row["count"] - 1 for row in effects)
    done = {(row["saga_id"], row["step"], row["branch"]) for row in effects}
    for saga_id, state in sagas.items():
        actions, undone = (
            {each for each in STEPS if (saga_id, each, branch) in done} for branch in ("action", "compensation")
        )
        kept = {*STEPS} if state == "completed" else set()
        ledger.lost += actions - undone != kept or not undone <= actions
    reserved = "SELECT saga_id FROM saga.entries WHERE step = 'reserve' AND kind = 'succeeded'"
    published = {f"{row['saga_id']}/reserve/action/0" for row in await pool.fetch(reserved)}
    delivered = [row["message_id"] for row in await pool.fetch("SELECT message_id FROM deliveries")]
    ledger.published, ledger.delivered = len(published), len(delivered)
    ledger.undelivered, ledger.unpublished = len(published - {*delivered}), len({*delivered} - published)
    ledger.started = len(sagas)
    ledger.completed = sum(state == "completed" for state in sagas.values())
    ledger.compensated = sum(state == "compensated" for state in sagas.values())


async def test_s4_a_worker_that_was_paused_beyond_its_lease_cannot_write(database: str) -> None:
    async with asyncpg.create_pool(database) as pool:
        await pool.execute(EFFECTS)
        await pool.execute(DELIVERIES)
        command = [sys.executable, "-c", STOPPABLE, database]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as zombie:  # noqa: ASYNC220  # the start blocks only briefly
            assert zombie.stdout is not None
            assert await asyncio.to_thread(zombie.stdout.readline) == "stopping\n"
            try:
                await _finish_all_sagas(database, pool)
                written = await pool.fetch("SELECT sequence, epoch FROM saga.entries ORDER BY sequence")
            finally:
                zombie.send_signal(signal.SIGCONT)
            *_, last = (await asyncio.to_thread(zombie.stdout.read)).splitlines()
            # A slow machine may have lost another lease before the pause.
            assert int(last.removeprefix("leases lost: ")) >= 1
        assert await pool.fetch("SELECT sequence, epoch FROM saga.entries ORDER BY sequence") == written
        assert {row["epoch"] for row in written} >= {1, 2}
        effects = await pool.fetch("SELECT step, count(*) FROM effects WHERE branch = 'action' GROUP BY step")
        assert {row["step"]: row["count"] for row in effects} == dict.fromkeys(STEPS, 1)


STOPPABLE = """
import asyncio, sys
from tests.saga.crash_worker import Job, work

lost, _ = asyncio.run(work(sys.argv[1], Job(0, stop=True)))
print(f"leases lost: {lost}", flush=True)
"""


async def test_s8_every_saga_ends_after_postgresql_was_killed_and_restarted() -> None:
    with running_postgresql() as server:
        dsn = server.dsn("postgres")
        connection = await asyncpg.connect(dsn)
        await migrate(connection)
        await connection.execute(EFFECTS)
        await connection.close()
        pool = await asyncpg.create_pool(dsn, min_size=0)
        own: list[JournalEngine] = []
        engine = JournalEngine(PostgresqlJournal(dsn), definitions(pool, own), lease=1.0, poll_interval=0.05)
        own.append(engine)
        async with engine:
            starting = asyncio.create_task(_start_many(engine, 60))
            await eventually(lambda: _some_ended(engine))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            ids = await starting
            states = {(await engine.wait(saga_id, 60)).state for saga_id in ids}
        doubled = await pool.fetch("SELECT 1 FROM effects GROUP BY saga_id, step, branch HAVING count(*) > 1")
        await pool.close()
    assert states <= {"completed", "compensated"}
    assert not doubled


async def _start_many(engine: JournalEngine, count: int) -> list[str]:
    ids = [f"saga-{number}" for number in range(count)]
    for saga_id in ids:
        while True:
            try:
                await engine.start("completes", saga_id=saga_id)
            except JournalUnavailableError:
                await asyncio.sleep(0.05)
            else:
                break
    return ids


async def _some_ended(engine: JournalEngine) -> bool:
    return engine.observation.transitions["completes", "completed"] >= 3


@pytest.mark.parametrize("claimed_by_another", [True, False], ids=["claimed by another", "not claimed"])
async def test_s4_a_write_under_an_expired_lease_is_refused(journal: Journal, claimed_by_another: bool) -> None:
    await journal.open(worker=True)
    claim = Claim("saga-1", "order", 1, "f", None, "", 1, [Entry("started"), Entry("began", "pay")])
    assert await journal.start(claim, "paused", 0.05)
    await asyncio.sleep(0.1)
    if claimed_by_another:
        (taken,) = await journal.claim("other", 5, 30.0)
        assert (taken.epoch, taken.claims, len(taken.entries)) == (2, 2, 2)
    else:
        assert await journal.renew([claim], 30.0) == set()
    message = Message("m", "order.paid", None)
    with pytest.raises(LeaseLostError, match="epoch 1"):
        await journal.append(claim, [Entry("succeeded", "pay")], "running", messages=[message], release=0.0)
    record = await journal.show("saga-1")
    assert record is not None
    assert [entry.kind for entry in record.entries] == ["started", "began"]
    async with journal.outbox(10) as batch:
        assert batch.messages == []
    await journal.close()
