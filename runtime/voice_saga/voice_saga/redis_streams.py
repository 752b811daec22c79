"""Messages over Redis Streams (Redis 6.2 or later, Valkey): a stream for each type. Needs the extra `redis`.

The commands are those that the platform's access rules allow: XADD to publish; XGROUP CREATE, XREADGROUP, XAUTOCLAIM
and XACK to consume.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from voice_saga.context import Message, to_json
from voice_saga.errors import MessagesRefusedError
from voice_saga.transport import end_if_cancelled

__all__ = ["RedisStreams"]

logger = logging.getLogger("voice_saga")
MAX_LENGTH = 100_000
"""Entries of a stream. The platform's three streams of them, with payloads of `PAYLOAD` on average, fill somewhat more
than half of the memory that its store may take. One that is full refuses each message, and with it the trimming."""
PAYLOAD = 1024
"""Bytes. A message says what happened and where the rest is."""
Received = tuple[Message, Callable[[], Awaitable[None]]]


class RedisStreams:
    """A transport over one Redis.

    `max_length`: entries that a stream keeps, about; older ones are trimmed, read or not, so that a consumer which is
    further behind misses them. `redeliver_after`: seconds that a message may stay unacknowledged before another
    consumer of the group gets it. `block`: longest wait of one read, in seconds.
    """

    def __init__(
        self, redis: Redis, *, max_length: int = MAX_LENGTH, redeliver_after: float = 60.0, block: float = 1.0
    ) -> None:
        self._redis = redis
        self._max_length = max_length
        self._redeliver_after = int(redeliver_after * 1000)
        self._block = max(1, int(block * 1000))

    async def send(self, messages: Sequence[Message]) -> None:
        """One round trip for all. Raises `ConnectionError`, or `MessagesRefusedError` for those that Redis refuses."""
        pipeline = self._redis.pipeline(transaction=False)
        for message in messages:
            payload = to_json(message.payload, f"message {message.type}")
            fields: Any = {"id": message.id, "payload": payload, "trace": message.trace}
            pipeline.xadd(message.type, fields, maxlen=self._max_length, approximate=True)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except RedisError as error:
            raise ConnectionError(f"Redis: {error}") from error
        refused = {place: answer for place, answer in enumerate(answers) if isinstance(answer, RedisError)}
        if refused:
            raise MessagesRefusedError({place: f"{messages[place].type}: {why}" for place, why in refused.items()})

    async def receive(self, types: Sequence[str], consumer: str) -> AsyncIterator[Received]:
        """The messages that this group has not acknowledged, without end. Reconnects after a lost connection."""
        name = uuid.uuid4().hex
        grouped = False
        cursors = dict.fromkeys(types, "0-0")
        while True:
            end_if_cancelled()
            try:
                if not grouped:
                    await self._make_groups(types, consumer)
                    grouped = True
                batch = [*await self._left_over(cursors, consumer, name), *await self._fresh(types, consumer, name)]
            except RedisError as error:
                logger.warning("Redis: %s", error)
                grouped = False
                await asyncio.sleep(self._block / 1000)
                continue
            for stream, entry_id, fields in batch:
                if (message := _message(stream, entry_id, fields)) is not None:
                    yield message, partial(self._acknowledge, stream, consumer, entry_id)

    async def _make_groups(self, types: Sequence[str], consumer: str) -> None:
        for stream in types:
            try:
                await self._redis.xgroup_create(stream, consumer, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _left_over(self, cursors: dict[str, Any], consumer: str, name: str) -> list[tuple[str, Any, Any]]:
        """Messages that another consumer, or this one, got and did not acknowledge, a few at a time from each cursor.

        Some that fail again and again come round like all others, and keep nobody from being looked at.
        """
        found = []
        for stream, cursor in cursors.items():
            cursors[stream], entries, *_ = await self._redis.xautoclaim(
                stream, consumer, name, self._redeliver_after, start_id=cursor, count=10
            )
            found += [(stream, entry_id, fields) for entry_id, fields in entries if fields]
        return found

    async def _fresh(self, types: Sequence[str], consumer: str, name: str) -> list[tuple[str, Any, Any]]:
        streams: Any = dict.fromkeys(types, ">")
        read: Any = await self._redis.xreadgroup(consumer, name, streams, count=10, block=self._block)
        pairs = read.items() if isinstance(read, dict) else read or ()
        return [(_text(stream), entry_id, fields) for stream, entries in pairs for entry_id, fields in _flat(entries)]

    async def _acknowledge(self, stream: str, consumer: str, entry_id: Any) -> None:
        try:
            await self._redis.xack(stream, consumer, entry_id)
        except RedisError as error:
            logger.warning("Redis: %s; the message comes again", error)


def _flat(entries: Any) -> Any:
    """RESP3 wraps the entries of a stream once more."""
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _message(stream: str, entry_id: Any, fields: Any) -> Message | None:
    """`None` for what is no message of ours: it stays unacknowledged, where it can be looked at."""
    try:
        read = {_text(key): _text(value) for key, value in fields.items()}
        return Message(read["id"], stream, json.loads(read["payload"]), read.get("trace", ""))
    except (KeyError, ValueError):
        logger.exception("entry %s of stream %s is no message: expected id and payload, JSON", entry_id, stream)
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
