from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from voice_policies import Duration
from voice_saga import JournalEngine, Reply, SqliteJournal, StepContext, sqlite

from tests.saga.definitions import Log, eventually, saga, step

HOUR = 3600.0


class WallClock:
    """The time of day and the monotonic clock that the SQLite journal reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved = 0.0
        """Seconds that the time of day is ahead."""
        self.boot = 0.0
        """Real monotonic time at which the journal's monotonic clock is zero."""
        clocks = SimpleNamespace(time=lambda: time.time() + self.moved, monotonic=lambda: time.monotonic() - self.boot)
        monkeypatch.setattr(sqlite, "time", clocks)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


async def test_a_saga_stays_with_its_worker_if_the_wall_clock_is_set_forward(tmp_path: Path, clock: WallClock) -> None:
    log, go_on = Log(), asyncio.Event()

    async def long(_: StepContext) -> None:
        await go_on.wait()

    log.does("pay", long)
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [log.definition(saga(step("pay")))]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _done(log, "pay"))
        clock.moved = HOUR
        assert await engine.journal.claim("another", 1, 30.0) == []
        go_on.set()
        record = await engine.wait(saga_id, 60)
    assert (record.state, log.done) == ("completed", ["pay"])


async def test_a_started_saga_runs_after_the_wall_clock_is_set_back(tmp_path: Path, clock: WallClock) -> None:
    log = Log()
    definition = log.definition(saga(step("pay")))
    starter = JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition])
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition], poll_interval=0.02) as worker:
        await starter.open()
        clock.moved = HOUR
        saga_id = await starter.start("order")
        clock.moved = 0.0
        await starter.close()
        assert (await worker.wait(saga_id, 60)).state == "completed"


async def test_a_waiting_step_times_out_although_the_machine_was_restarted(tmp_path: Path, clock: WallClock) -> None:
    """After the restart the monotonic clock begins at zero."""
    log, path = Log(), tmp_path / "sagas.db"

    async def later(_: StepContext) -> Reply:
        return Reply.LATER

    log.does("pay", later)
    definition = log.definition(saga(step("pay", timeout=Duration("30s"), attempt_timeout=Duration("3s"))))
    async with JournalEngine(SqliteJournal(path), [definition]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _waits(engine, saga_id))
    clock.boot, clock.moved = time.monotonic(), 40.0
    async with JournalEngine(SqliteJournal(path), [definition], poll_interval=0.02) as engine:
        record = await engine.wait(saga_id, 60)
    assert record.reason == "pay: no outcome was delivered in time"


async def test_a_refused_message_is_due_again_after_the_wall_clock_was_set_back(
    tmp_path: Path, clock: WallClock
) -> None:
    log = Log()

    async def tell(context: StepContext) -> None:
        context.publish("order.paid", 1)

    log.does("pay", tell)
    journal = SqliteJournal(tmp_path / "sagas.db")
    async with JournalEngine(journal, [log.definition(saga(step("pay")))]) as engine:
        await engine.wait(await engine.start("order"), 60)
        clock.moved = HOUR
        async with journal.outbox(10) as batch:
            batch.refused = [0]
        async with journal.outbox(10) as batch:
            assert batch.messages == []
        clock.moved = 0.0
        async with journal.outbox(10) as batch:
            assert [message.type for message in batch.messages] == ["order.paid"]


async def _done(log: Log, name: str) -> bool:
    return name in log.done


async def _waits(engine: JournalEngine, saga_id: str) -> bool:
    return (await engine.show(saga_id)).state == "waiting"
