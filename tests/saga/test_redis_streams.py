from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from voice_saga import Message
from voice_saga.prometheus import DeadLetterCollector
from voice_saga.redis_streams import RedisStreams
from voice_saga.transport import Handler, consume

from tests.driver import seeded
from tests.saga.definitions import eventually

GROUP = "group"


@pytest.fixture
def stream() -> str:
    return f"{uuid.uuid4().hex}.made"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Redis]:
    redis = Redis(port=port)
    try:
        yield redis
    finally:
        await redis.aclose()


@asynccontextmanager
async def consuming(transport: RedisStreams, stream: str, handle: Handler) -> AsyncIterator[None]:
    task = asyncio.create_task(consume(transport, GROUP, {stream: handle}))
    try:
        yield
    finally:
        await stopped(task)


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    assert done


def numbered(stream: str, count: int) -> list[Message]:
    return [Message(str(number), stream, number) for number in range(count)]


async def _holds(condition: Callable[[], bool]) -> bool:
    return condition()


async def until(condition: Callable[[], bool]) -> None:
    await eventually(lambda: _holds(condition))


async def _pending(redis: Redis, stream: str, count: int) -> bool:
    """True if all messages of the stream were read, and `count` of them are pending."""
    length = await redis.xlen(stream)
    return any(each["pending"] == count and each["entries-read"] == length for each in await redis.xinfo_groups(stream))


async def _dead_letters(redis: Redis, stream: str) -> list[dict[str, str]]:
    found: Any = await redis.xrange(f"{stream}.dead-letters")
    return [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in found]


async def test_a_message_whose_handler_fails_is_delivered_again(redis_port: int, stream: str) -> None:
    handled, failures = [], {1: 1}

    async def handle(message: Message) -> None:
        number = message.payload
        if failures.get(number, 0):
            failures[number] -= 1
            raise ValueError("not yet")
        handled.append(number)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.05, block=0.02)
        await transport.send(numbered(stream, 3))
        async with consuming(transport, stream, handle):
            await eventually(lambda: _pending(redis, stream, 0))
    assert sorted(handled) == [0, 1, 2]


async def test_a_message_of_a_dead_consumer_is_delivered_again_and_the_consumer_is_removed(
    redis_port: int, stream: str
) -> None:
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.payload)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.05, block=0.02)
        await transport.send(numbered(stream, 3))
        await redis.xgroup_create(stream, GROUP, id="0")
        await redis.xreadgroup(GROUP, "died", {stream: ">"}, count=2)
        async with consuming(transport, stream, handle):
            await until(lambda: sorted(handled) == [0, 1, 2])
            await eventually(lambda: _consumers(redis, stream, 1))
        assert await _consumers(redis, stream, 0)


async def _consumers(redis: Redis, stream: str, count: int) -> bool:
    return len(await redis.xinfo_consumers(stream, GROUP)) == count


async def test_an_idle_consumer_that_lives_is_not_removed(redis_port: int, stream: str) -> None:
    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.02, block=0.05)
        async with consuming(transport, stream, _nothing), consuming(transport, stream, _nothing):
            await until_grouped(redis, stream)
            before = {each["name"] for each in await redis.xinfo_consumers(stream, GROUP)}
            await asyncio.sleep(1)
            assert {each["name"] for each in await redis.xinfo_consumers(stream, GROUP)} == before


async def _nothing(_: Message) -> None:
    pass


async def until_grouped(redis: Redis, stream: str) -> None:
    async def both() -> bool:
        return await redis.exists(stream) == 1 and await _consumers(redis, stream, 2)

    await eventually(both)


async def test_stopped_consumers_leave_their_group(redis_port: int, stream: str) -> None:
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.payload)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, block=0.02)
        for number in range(8):
            await transport.send([Message(str(number), stream, number)])
            async with consuming(transport, stream, handle):
                await until(lambda: len(handled) == number + 1)  # noqa: B023  # awaited here
        assert await _consumers(redis, stream, 0)


async def test_a_message_is_handled_once_while_the_message_before_it_takes_long(redis_port: int, stream: str) -> None:
    handled: list[int] = []
    go_on = asyncio.Event()

    async def handle(message: Message) -> None:
        handled.append(message.payload)
        if message.payload == 0:
            await go_on.wait()

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=2.0, block=0.02)
        await transport.send(numbered(stream, 5))
        async with consuming(transport, stream, handle):
            await until(lambda: handled == [0])
            async with consuming(transport, stream, handle):
                await asyncio.sleep(5)  # longer than `redeliver_after`: a silent consumer would lose its messages
                assert handled == [0]
                go_on.set()
                await eventually(lambda: _pending(redis, stream, 0))
    assert sorted(handled) == [0, 1, 2, 3, 4]


async def test_a_message_that_always_fails_becomes_a_counted_dead_letter(redis_port: int, stream: str) -> None:
    tried: list[int] = []

    async def handle(message: Message) -> None:
        tried.append(message.payload)
        if message.payload == 1:
            raise ValueError("will never work")

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.01, max_deliveries=3, block=0.01)
        registry = CollectorRegistry()
        registry.register(DeadLetterCollector(transport.dead_letters))
        await transport.send([Message("7", stream, 1, "trace"), Message("8", stream, 2)])
        async with consuming(transport, stream, handle):
            await eventually(lambda: _pending(redis, stream, 0))
        (letter,) = await _dead_letters(redis, stream)
    assert tried.count(1) == 3
    entry = letter.pop("entry")
    assert letter == {"id": "7", "payload": "1", "trace": "trace", "consumer": GROUP, "deliveries": "3"}
    assert "-" in entry
    labels = {"stream": stream, "consumer": GROUP}
    assert registry.get_sample_value("voice_stream_dead_letters_total", labels) == 1


async def test_an_invalid_entry_becomes_a_dead_letter_and_blocks_no_message(redis_port: int, stream: str) -> None:
    handled: list[str] = []

    async def handle(message: Message) -> None:
        handled.append(message.id)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.01, max_deliveries=2, block=0.01)
        await redis.xadd(stream, {"id": "1"})
        await redis.xadd(stream, {"id": "2", "payload": "no JSON"})
        await transport.send([Message("3", stream, {})])
        async with consuming(transport, stream, handle):
            await eventually(lambda: _pending(redis, stream, 0))
        letters = await _dead_letters(redis, stream)
    assert handled == ["3"]
    assert [letter["id"] for letter in letters] == ["1", "2"]


async def test_a_message_stays_in_its_stream_if_the_dead_letter_stream_refuses_it(redis_port: int, stream: str) -> None:
    handled: list[int] = []

    async def handle(message: Message) -> None:
        if message.payload == 0:
            raise ValueError("never")
        handled.append(message.payload)

    async with connected(redis_port) as redis:
        await redis.set(f"{stream}.dead-letters", "no stream")
        transport = RedisStreams(redis, redeliver_after=0.01, max_deliveries=1, block=0.01)
        await transport.send(numbered(stream, 2))
        async with consuming(transport, stream, handle):
            await until(lambda: handled == [1])
            await asyncio.sleep(0.2)
            await transport.send([Message("9", stream, 9)])
            await until(lambda: handled == [1, 9])
        assert await _pending(redis, stream, 1)
    assert transport.dead_letters == {(stream, GROUP): 0}


async def test_a_delivery_that_a_deploy_interrupts_does_not_count_as_failed(redis_port: int, stream: str) -> None:
    begun: list[int] = []

    async def hang(message: Message) -> None:
        begun.append(message.payload)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionError("an error of the driver instead of a cancellation") from None

    async def handle(message: Message) -> None:
        begun.append(-message.payload)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=60.0, max_deliveries=2, block=0.01)
        await transport.send([Message("1", stream, 1), Message("2", stream, 2)])
        for number in range(5):
            async with consuming(transport, stream, hang):
                await until(lambda: len(begun) == number + 1)  # noqa: B023  # awaited here
        async with consuming(transport, stream, handle):  # gets the messages at once, not after `redeliver_after`
            await eventually(lambda: _pending(redis, stream, 0))
    assert begun == [1] * 5 + [-1, -2]
    assert transport.dead_letters == {(stream, GROUP): 0}


async def test_a_delivery_does_not_count_if_its_consumer_ends_before_the_handler_begins(
    redis_port: int, stream: str
) -> None:
    reads = asyncio.Event()

    class Slow(Redis):
        """Never returns from XREADGROUP. By then, the consumer has claimed the message of the dead consumer."""

        async def xreadgroup(self, *_: Any, **__: Any) -> Any:
            reads.set()
            await asyncio.Event().wait()

    await _handled_after_three_ended_consumers(redis_port, stream, Slow(port=redis_port), reads)


async def test_a_claim_does_not_count_if_its_consumer_ends_before_the_claim_is_answered(
    redis_port: int, stream: str
) -> None:
    sent = asyncio.Event()

    class Slow(Redis):
        """A client that gets the answers to XAUTOCLAIM late."""

        async def xautoclaim(self, *arguments: Any, **options: Any) -> Any:
            answer = await super().xautoclaim(*arguments, **options)
            sent.set()
            await asyncio.sleep(0.1)
            return answer

    await _handled_after_three_ended_consumers(redis_port, stream, Slow(port=redis_port), sent)


async def _handled_after_three_ended_consumers(port: int, stream: str, slow: Redis, reached: asyncio.Event) -> None:
    """Run three consumers on the client `slow`, one after the other. Cancel each consumer when `reached` is set.

    Then a consumer on another client handles the message.
    """
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.payload)

    async with connected(port) as redis, slow:
        settings: Any = {"redeliver_after": 0.1, "max_deliveries": 2, "block": 0.01}
        await RedisStreams(redis).send([Message("1", stream, 1)])
        await _died_with_every_message(redis, stream, idle=100)
        for _ in range(3):
            reached.clear()
            async with consuming(RedisStreams(slow, **settings), stream, handle):
                await reached.wait()
            assert handled == []
        async with consuming(RedisStreams(redis, **settings), stream, handle):
            await eventually(lambda: _pending(redis, stream, 0))
        assert await _dead_letters(redis, stream) == []
    assert handled == [1]


async def test_a_redelivered_message_does_not_wait_for_new_messages(redis_port: int, stream: str) -> None:
    handled: list[int] = []

    async def handle(message: Message) -> None:
        handled.append(message.payload)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=60.0, block=3600.0)
        await transport.send(numbered(stream, 2))
        await _died_with_every_message(redis, stream, idle=60_000)
        async with consuming(transport, stream, handle):
            await until(lambda: handled == [0, 1])


async def _died_with_every_message(redis: Redis, stream: str, *, idle: int) -> None:
    """Deliver every message to a consumer that died without acknowledging them, `idle` milliseconds ago."""
    await redis.xgroup_create(stream, GROUP, id="0")
    await redis.xreadgroup(GROUP, "died", {stream: ">"})
    entries: Any = await redis.xrange(stream)
    await redis.xclaim(stream, GROUP, "died", 0, [entry for entry, _ in entries], idle=idle, justid=True)


async def test_messages_that_fail_repeatedly_do_not_block_later_messages(redis_port: int, stream: str) -> None:
    handled: list[int] = []

    async def handle(message: Message) -> None:
        if message.payload < 12:
            raise ValueError("never")
        handled.append(message.payload)

    async with connected(redis_port) as redis:
        transport = RedisStreams(redis, redeliver_after=0.001, max_deliveries=1_000_000, block=0.002)
        await transport.send(numbered(stream, 30))
        await redis.xgroup_create(stream, GROUP, id="0")
        await redis.xreadgroup(GROUP, "died", {stream: ">"}, count=30)
        async with consuming(transport, stream, handle):
            await until(lambda: len(handled) >= 18)
    assert sorted(handled) == list(range(12, 30))


async def test_a_consumer_ends_wherever_it_is_cancelled(redis_port: int, stream: str) -> None:
    async with connected(redis_port) as redis:
        transport: Any = RedisStreams(redis, block=0.001)
        random = seeded()
        for _ in range(300):
            task = asyncio.create_task(consume(transport, GROUP, {stream: _nothing}))
            await asyncio.sleep(random.uniform(0, 0.006))
            await stopped(task)
