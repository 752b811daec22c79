"""Code for type checkers only. It never runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

from temporalio.client import Client
from voice_policies import Saga
from voice_saga import (
    Action,
    Definition,
    Engine,
    Entry,
    Journal,
    JournalEngine,
    Message,
    Reply,
    SagaRecord,
    SagaSummary,
    SqliteJournal,
    State,
    StepContext,
)
from voice_saga.postgresql import PostgresqlJournal
from voice_saga.redis_streams import RedisStreams
from voice_saga.temporal import TemporalEngine
from voice_saga.transport import Handler, Outbox, Transport, consume, delivers, starts


async def embed(context: StepContext) -> dict[str, int]:
    context.publish("document.embedded", {"document": context.saga_id})
    return {"chunks": 3}


async def confirm(_: StepContext) -> Reply:
    return Reply.LATER


def without_await(_: StepContext) -> int:
    return 1


def definition(policy: Saga) -> Definition:
    action: Action = embed
    Definition(policy, {"embed": without_await})  # type: ignore[dict-item]  # an action is asynchronous
    return Definition(policy, {"embed": action, "confirm": confirm})


async def engines(policy: Saga, client: Client) -> None:
    journals: list[Journal] = [SqliteJournal(Path("sagas.db")), PostgresqlJournal("postgresql://localhost/sagas")]
    engines: list[Engine] = [JournalEngine(journal, [definition(policy)]) for journal in journals]
    engines.append(TemporalEngine(client, [definition(policy)], task_queue="sagas"))
    async with JournalEngine(journals[0]) as engine:
        assert_type(engine, JournalEngine)


async def used(engine: Engine) -> None:
    saga_id = await engine.start("indexing", {"document": "42"})
    assert_type(saga_id, str)
    record = await engine.wait(saga_id, 5.0)
    assert_type(record, SagaRecord)
    assert_type(record.state, State)
    assert_type(record.entries, tuple[Entry, ...])
    assert_type(await engine.list(state="parked"), Sequence[SagaSummary])
    await engine.list(state="park")  # type: ignore[arg-type]  # `park` is not a state
    assert_type(await engine.deliver(saga_id, "confirm", 1), bool)


async def messages(engine: Engine, journal: Journal, redis: Any) -> None:
    transport: Transport = RedisStreams(redis)
    assert_type(await Outbox(journal, transport).flush(), int)
    handlers: dict[str, Handler] = {"document.uploaded": starts(engine, "indexing"), "reply": delivers(engine)}

    async def handle(message: Message) -> None:
        assert_type(message.id, str)

    handlers["other"] = handle
    await consume(transport, "indexing", handlers)
