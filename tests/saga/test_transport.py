from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from voice_saga import JournalEngine, Message, NotJsonError, SqliteJournal, StepContext
from voice_saga.journal import Journal
from voice_saga.postgresql import PostgresqlJournal, publish
from voice_saga.prometheus import OutboxCollector
from voice_saga.redis_streams import RedisStreams
from voice_saga.transport import Outbox, consume, delivers

from tests import redis_servers
from tests.driver import seeded
from tests.saga.definitions import Log, eventually, saga, step


class Wire:
    def __init__(self, *, broken: bool = False) -> None:
        self.sent: list[Message] = []
        self.broken = broken

    async def send(self, messages: Any) -> None:
        if self.broken:
            raise ConnectionError("the wire is cut")
        self.sent += messages

    def receive(self, types: Any, consumer: str) -> Any:
        raise NotImplementedError


async def test_a_published_message_is_sent_after_its_step_is_recorded_and_is_then_deleted(journal: Journal) -> None:
    log, wire = Log(), Wire(broken=True)

    async def tell(context: StepContext) -> Any:
        context.publish("order.paid", {"amount": 7})
        context.publish("order.paid", {"amount": 8})

    async def tell_and_fail(context: StepContext) -> Any:
        context.publish("order.shipped", None)
        raise ValueError("no")

    log.does("pay", tell)
    log.does("ship", tell_and_fail)
    async with JournalEngine(journal, [log.definition(saga(step("pay"), step("ship")))]) as engine:
        saga_id = await engine.start("order")
        await engine.wait(saga_id, 30)
        outbox = Outbox(journal, wire)
        with pytest.raises(ConnectionError):
            await outbox.flush()
        wire.broken = False
        assert (await outbox.flush(), await outbox.flush()) == (2, 0)
    sent = [(message.id, message.type, message.payload["amount"]) for message in wire.sent]
    assert sent == [(f"{saga_id}/pay/action/0", "order.paid", 7), (f"{saga_id}/pay/action/1", "order.paid", 8)]


async def test_a_refused_message_is_retried_without_delaying_other_messages(journal: Journal, redis_port: int) -> None:
    log, name = Log(), uuid.uuid4().hex
    good, forbidden = f"{name}.good", f"{name}.forbidden"
    redis = Redis(port=redis_port)
    await redis.set(forbidden, "no stream")

    async def tell(context: StepContext) -> Any:
        context.publish(forbidden, 1)
        context.publish(good, 2)

    log.does("pay", tell)
    registry = CollectorRegistry()
    async with JournalEngine(journal, [log.definition(saga(step("pay")))]) as engine:
        await engine.wait(await engine.start("order"), 30)
        outbox = Outbox(journal, RedisStreams(redis), poll_interval=0.02)
        registry.register(OutboxCollector(outbox))
        sending = asyncio.create_task(outbox.run())
        await engine.wait(await engine.start("order"), 30)
        await eventually(lambda: _counts(outbox, refused=3))
        assert await redis.xlen(good) == 2
        await redis.delete(forbidden)
        await eventually(lambda: _counts(outbox, sent=4))
        sending.cancel()
        async with journal.outbox(10) as batch:
            assert batch.messages == []
    assert (await redis.xlen(good), await redis.xlen(forbidden)) == (2, 2)
    assert registry.get_sample_value("voice_outbox_refused_total") == outbox.refused < 6, (
        "the waits between the refusals grow"
    )
    assert registry.get_sample_value("voice_outbox_sent_total") == 4
    await redis.aclose()


async def _counts(outbox: Outbox, sent: int = 0, refused: int = 0) -> bool:
    return outbox.sent >= sent and outbox.refused >= refused


async def test_the_outbox_continues_after_a_table_was_missing(database: str) -> None:
    journal, wire = PostgresqlJournal(database), Wire()
    await journal.open(worker=False)
    connection = await asyncpg.connect(database)
    await connection.execute("ALTER TABLE saga.outbox RENAME TO elsewhere")
    sending = asyncio.create_task(Outbox(journal, wire, poll_interval=0.02).run())
    await asyncio.sleep(0.2)
    assert not sending.done()
    await connection.execute("ALTER TABLE saga.elsewhere RENAME TO outbox")
    await publish(connection, Message("1", "message.created", {}))
    await connection.close()
    await eventually(lambda: _has(wire.sent, 1))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await journal.close()


async def test_a_message_is_sent_only_if_it_is_json_and_the_services_transaction_commits(database: str) -> None:
    journal, wire = PostgresqlJournal(database), Wire()
    await journal.open(worker=False)
    connection = await asyncpg.connect(database)
    with pytest.raises(ValueError, match="rolled back"):  # noqa: PT012  # the test also needs the statements before the error
        async with connection.transaction():
            await publish(connection, Message("1", "message.created", {}))
            raise ValueError("rolled back")
    await publish(connection, Message("2", "message.created", {"text": "naïve"}))
    with pytest.raises(NotJsonError, match=r"message message\.created is not a JSON value"):
        await publish(connection, Message("3", "message.created", object()))
    await connection.close()
    await Outbox(journal, wire).flush()
    await journal.close()
    assert wire.sent == [Message("2", "message.created", {"text": "naïve"})]


async def test_two_senders_share_the_outbox_without_sending_a_message_twice(database: str) -> None:
    wires = [Wire(), Wire()]
    journals = [PostgresqlJournal(database) for _ in wires]
    connection = await asyncpg.connect(database)
    for number in range(300):
        await publish(connection, Message(str(number), "message.created", number))
    await connection.close()
    for journal in journals:
        await journal.open(worker=False)
    await asyncio.gather(*(Outbox(journal, wire).flush() for journal, wire in zip(journals, wires, strict=True)))
    for journal in journals:
        await journal.close()
    assert sorted(message.payload for wire in wires for message in wire.sent) == list(range(300))


async def test_a_reply_to_an_unknown_saga_is_dropped(tmp_path: Path) -> None:
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db")) as engine:
        await delivers(engine)(Message("1", "embedding.made", {"saga_id": "gone", "step": "pay"}))


async def test_a_reply_without_a_saga_id_is_refused(tmp_path: Path) -> None:
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db")) as engine:
        with pytest.raises(KeyError, match="saga_id"):
            await delivers(engine)(Message("1", "embedding.made", {}))


async def test_every_group_gets_new_messages_after_redis_lost_its_groups(tmp_path: Path) -> None:
    log = Log()
    handled: list[str] = []

    async def tell(context: StepContext) -> Any:
        context.publish("order.paid", context.saga_id)

    async def handle(message: Message) -> None:
        handled.append(message.payload)

    log.does("pay", tell)
    journal = SqliteJournal(tmp_path / "sagas.db")
    with redis_servers.single(tmp_path) as server:
        redis = Redis(port=server.port, socket_timeout=5)
        transport = RedisStreams(redis, block=0.02)
        async with JournalEngine(journal, [log.definition(saga(step("pay")))]) as engine:
            tasks = [asyncio.create_task(Outbox(journal, transport, poll_interval=0.02).run())]
            tasks += [asyncio.create_task(consume(transport, group, {"order.paid": handle})) for group in ("a", "b")]
            one = await engine.start("order")
            await eventually(lambda: _times(handled, one, 2))
            await redis.flushall()  # removes the groups, like a Redis that lost its data
            two = await engine.start("order")
            await eventually(lambda: _times(handled, two, 2))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await redis.aclose()


async def _times(handled: list[str], saga_id: str, count: int) -> bool:
    return handled.count(saga_id) >= count


async def test_an_outbox_ends_whenever_it_is_cancelled(database: str) -> None:
    """A driver may convert a cancellation into its own error."""
    journal = PostgresqlJournal(database)
    await journal.open(worker=False)
    random = seeded()
    for _ in range(150):
        sending = asyncio.create_task(Outbox(journal, Wire(), poll_interval=1e-6).run())
        await asyncio.sleep(random.uniform(0, 0.004))
        sending.cancel()
        done, _ = await asyncio.wait([sending], timeout=10)
        assert done
        assert sending.cancelled()
    await journal.close()


async def _has(sent: list[Message], count: int) -> bool:
    return len(sent) >= count
