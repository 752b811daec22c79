from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from voice_saga import (
    JournalEngine,
    JournalUnavailableError,
    Message,
    NotJsonError,
    SagaConflictError,
    SqliteJournal,
    StepContext,
)
from voice_saga.journal import Claim, Journal
from voice_saga.metrics import DEAD_LETTER_METRICS, METRICS
from voice_saga.observation import Observation
from voice_saga.postgresql import PostgresqlJournal
from voice_saga.progress import Entry
from voice_saga.transport import DeadLetters, consume

from tests.saga.backends import Backend
from tests.saga.definitions import Log, saga, step


async def waits_for_cancelled_work(_: object) -> None:
    work = asyncio.create_task(asyncio.sleep(60))
    work.cancel()
    await work


async def test_a_step_that_waits_for_cancelled_work_fails_and_the_saga_is_undone(backend: Backend) -> None:
    log = Log()
    log.does("pay", waits_for_cancelled_work)
    async with backend([log.definition(saga(step("reserve"), step("pay", retries=0)))]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    assert record.state == "compensated"
    assert record.reason == "pay: WorkCancelledError: pay waited for work that was cancelled"


async def test_a_compensation_that_waits_for_cancelled_work_runs_again(backend: Backend) -> None:
    log = Log()
    log.fails("pay", lambda: ValueError("no money"))
    tries: list[int] = []

    async def undo(context: StepContext) -> None:
        tries.append(1)
        if len(tries) == 1:
            await waits_for_cancelled_work(context)

    log.does("undo-reserve", undo)
    async with backend([log.definition(saga(step("reserve"), step("pay", retries=0)))]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    assert (record.state, len(tries)) == ("compensated", 2)


class TwoMessages:
    def __init__(self) -> None:
        self.acknowledged: list[str] = []

    async def send(self, messages: Sequence[Message]) -> None:
        raise NotImplementedError

    async def receive(
        self, types: Sequence[str], consumer: str
    ) -> AsyncGenerator[tuple[Message, Callable[[], Awaitable[None]]], None]:
        for number in ("first", "second"):

            async def acknowledge(number: str = number) -> None:
                self.acknowledged.append(number)

            yield Message(number, types[0], {"consumer": consumer}), acknowledge


async def test_a_handler_that_waits_for_cancelled_work_does_not_end_the_consumer() -> None:
    async def handle(message: Message) -> None:
        if message.id == "first":
            await waits_for_cancelled_work(message)

    transport = TwoMessages()
    await consume(transport, "indexer", {"document.uploaded": handle})
    assert transport.acknowledged == ["second"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


async def test_a_deeply_nested_input_and_result_reach_every_step(journal: Journal) -> None:
    log = Log()

    async def same(context: StepContext) -> Any:
        return context.input

    async def compare(context: StepContext) -> bool:
        return json.dumps(context.results["reserve"]) == json.dumps(context.input)

    log.does("reserve", same)
    log.does("pay", compare)
    async with JournalEngine(journal, [log.definition(saga(step("reserve"), step("pay")))]) as engine:
        record = await engine.wait(await engine.start("order", nested(400)), 60)
    assert record.state == "completed"
    assert [entry.data for entry in record.entries if entry.step == "pay" and entry.kind == "succeeded"] == [True]


async def test_an_input_that_is_nested_too_deeply_is_refused(journal: Journal) -> None:
    async with JournalEngine(journal, [Log().definition(saga(step("reserve")))]) as engine:
        with pytest.raises(NotJsonError, match="the input is not a JSON value"):
            await engine.start("order", nested(100_000))


async def test_a_journal_opens_after_its_file_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "sagas.db"
    path.mkdir()
    journal = SqliteJournal(path)
    for _ in range(2):
        with pytest.raises(JournalUnavailableError, match="unable to open database file"):
            await journal.open(worker=True)
    path.rmdir()
    for _ in range(2):
        await journal.open(worker=True)
        await journal.close()


async def test_the_error_for_a_file_that_is_no_database_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sagas.db"
    path.write_text("no database " * 100)
    with pytest.raises(JournalUnavailableError, match=r"sagas\.db: file is not a database"):
        await SqliteJournal(path).open(worker=False)


async def test_a_write_while_the_journal_closes_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "sagas.db")
    await journal.open(worker=True)
    closing = asyncio.create_task(journal.close())
    await asyncio.sleep(0)  # the closing task has handed its work to the journal's thread
    claim = Claim("saga-1", "order", 1, "f", None, "", 1, [Entry("started")])
    with pytest.raises(JournalUnavailableError, match="is not open"):
        await journal.start(claim, None, 0.0)
    await closing


async def test_a_journal_that_finds_no_tables_closes_its_connections(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE DATABASE without_tables")
    try:
        for _ in range(3):
            with pytest.raises(JournalUnavailableError, match="run the scripts of voice_saga/migrations/postgresql"):
                await PostgresqlJournal(database.removesuffix("postgres") + "without_tables").open(worker=True)
        left = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'without_tables'"
        for _ in range(1000):  # PostgreSQL notices a closed connection a little later
            if not (open_connections := await connection.fetchval(left)):
                break
            await asyncio.sleep(0.01)
        assert not open_connections
    finally:
        await connection.execute("DROP DATABASE without_tables WITH (FORCE)")
        await connection.close()


def test_a_label_that_appears_during_an_export_does_not_break_the_export() -> None:
    observation, letters = Observation(), DeadLetters({("documents", "indexer"): 1})
    observation.transitions["order", "started"] = 1
    observation.executions["order", "pay", "action", "successful"] = 1
    observation.seconds["order", "pay", "action"] = 1
    observation.unfinished["order", "running"] = 1
    for metric in METRICS:
        for number, _ in enumerate(metric.read(observation)):
            observation.transitions["order", f"{metric.name} {number}"] = 1
            observation.executions["order", "pay", "action", f"{metric.name} {number}"] = 1
            observation.seconds["order", f"{metric.name} {number}", "action"] = 1
    for dead_letters in DEAD_LETTER_METRICS:
        for number, _ in enumerate(dead_letters.read(letters)):
            letters["documents", str(number)] = 1


async def test_a_journal_that_is_not_open_is_unavailable(journal: Journal) -> None:
    engine = JournalEngine(journal, [Log().definition(saga(step("pay")))])

    async def is_refused() -> None:
        for request in (engine.start("order"), engine.show("1"), engine.list(), engine.deliver("1", "pay")):
            with pytest.raises(JournalUnavailableError):
                async with asyncio.timeout(60):
                    await request

    await is_refused()
    async with engine:
        assert (await engine.wait(await engine.start("order"), 60)).state == "completed"
    await is_refused()


@pytest.mark.parametrize("event_type", ["", "order\0paid", "order.\ud800"], ids=["empty", "NUL", "surrogate"])
async def test_an_event_of_an_impossible_type_fails_its_step(journal: Journal, event_type: str) -> None:
    async def publish(context: StepContext) -> None:
        context.publish(event_type, {})

    log = Log()
    log.does("pay", publish)
    async with JournalEngine(journal, [log.definition(saga(step("pay")))]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    assert record.state == "compensated"
    assert "is no type of an event; expected text such as document.indexed" in record.reason


async def test_one_of_several_simultaneous_abandonments_succeeds_and_the_others_are_refused(journal: Journal) -> None:
    log = Log()
    log.hangs("pay")
    async with JournalEngine(journal, [log.definition(saga(step("pay")))]) as engine:
        saga_id = await engine.start("order")
        requests = [engine.abandon(saga_id, f"operator {number}") for number in range(6)]
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert outcomes.count(None) == 1
        assert all(isinstance(error, SagaConflictError) for error in outcomes if error is not None), outcomes
        assert (await engine.show(saga_id)).state == "abandoned"
