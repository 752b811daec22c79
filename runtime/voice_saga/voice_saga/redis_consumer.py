"""A consumer of a Redis consumer group: it reads messages, holds them while they are handled, and acknowledges them."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import Message

logger = logging.getLogger("voice_saga")
COUNT = 10
"""Maximum number of unacknowledged messages, and of new messages, that one read takes from each stream."""
FORGET_AFTER = 10
"""A consumer that is inactive for longer than `FORGET_AFTER` × `redeliver_after` counts as dead. If a dead consumer has
no unacknowledged messages, other consumers remove it from the group."""
LEAVE_SECONDS = 5.0
"""Longest time in seconds that a consumer takes to leave its group. If leaving would take longer, other consumers get
the consumer's messages only after `redeliver_after`."""
DEAD_LETTERS = ".dead-letters"
"""Suffix of the stream for messages that no consumer could handle."""


DEAD_LETTERS_KEPT = 1000
"""Approximate maximum number of entries in a stream of dead letters. It is low, because dead letters take memory from
live messages."""


@dataclass(frozen=True, slots=True)
class Group:
    """The settings that the consumers of one service share. Times are in milliseconds."""

    name: str
    streams: tuple[str, ...]
    redeliver_after: int
    max_deliveries: int
    block: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that this consumer holds."""

    stream: str
    entry: Any
    message: Message


class RedisConsumer:
    """A consumer, used with `async with`. While it holds a message, no other consumer of the group gets the message.

    `dead_letters` counts dead letters by stream and group.
    """

    def __init__(self, redis: Redis, group: Group, dead_letters: Counter[tuple[str, str]]) -> None:
        self._redis = redis
        self._group = group
        self._dead_letters = dead_letters
        for stream in group.streams:
            dead_letters[stream, group.name] += 0  # export 0, because a counter that starts at 1 shows no increase
        self._name = uuid.uuid4().hex
        self._cursors: dict[str, Any] = dict.fromkeys(group.streams, "0-0")
        self._held: dict[tuple[str, Any], None] = {}
        self._grouped = False
        self._keeping: asyncio.Task[None] | None = None
        self._claiming: asyncio.Task[dict[Any, Any]] | None = None

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Return the held messages, so that other consumers get them immediately.

        The delivery to this consumer does not count, because an orderly stop is not a failed delivery.
        """
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                if self._claiming is not None:
                    await asyncio.gather(self._claiming, return_exceptions=True)
                for stream in self._group.streams if self._grouped else ():
                    await self._leave(stream)
        except (RedisError, TimeoutError) as failed:
            logger.warning("Redis: %s; the messages of consumer %s are delivered again later", failed, self._name)

    async def _leave(self, stream: str) -> None:
        for row in await self._still_pending(stream, [entry for of, entry in self._held if of == stream]):
            before = max(row["times_delivered"] - 1, 0)
            await self._claim(stream, [row["message_id"]], idle=self._group.redeliver_after, retrycount=before)
        if not await self._redis.xpending_range(stream, self._group.name, "-", "+", 1, self._name):
            await self._redis.xgroup_delconsumer(stream, self._group.name, self._name)

    async def read(self) -> list[Delivery]:
        """Read new messages, and unacknowledged messages that no consumer holds any longer.

        If there are no such unacknowledged messages, waits up to `block` ms for new messages. Returns no messages while
        Redis is unreachable.
        """
        try:
            if not self._grouped:
                await self._make_groups()
            found = await self._unacknowledged()
            found += await self._fresh(None if found else self._group.block)
        except RedisError as error:
            logger.warning("Redis: %s", error)
            self._grouped = False
            self._held = {}
            await asyncio.sleep(self._group.block / 1000)
            return []
        deliveries = [
            Delivery(stream, entry, message)
            for stream, entry, fields in found
            if (message := _message(stream, entry, fields)) is not None
        ]
        self._held = dict.fromkeys((each.stream, each.entry) for each in deliveries)
        return deliveries

    async def acknowledge(self, delivery: Delivery) -> None:
        """Mark the message as handled."""
        try:
            await self._redis.xack(delivery.stream, self._group.name, delivery.entry)
        except RedisError as error:
            logger.warning("Redis: %s; the message is delivered again", error)

    def let_go(self, delivery: Delivery) -> None:
        """Stop holding the message. Unless it was acknowledged, it is delivered again after `redeliver_after`."""
        self._held.pop((delivery.stream, delivery.entry), None)

    async def _make_groups(self) -> None:
        for stream in self._group.streams:
            try:
                await self._redis.xgroup_create(stream, self._group.name, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._grouped = True

    async def _unacknowledged(self) -> list[tuple[str, Any, Any]]:
        """Up to `COUNT` unacknowledged messages of each stream that no consumer held in the last `redeliver_after` ms.

        The next call continues after these messages, so messages that fail repeatedly do not block others.
        """
        found = []
        for stream in self._group.streams:
            # Read the answer even if this consumer is cancelled: Redis has already counted the deliveries.
            self._claiming = asyncio.create_task(self._claim_silent(stream))
            here = await asyncio.shield(self._claiming)
            for row in await self._still_pending(stream, list(here)):
                if row["times_delivered"] > self._group.max_deliveries:
                    await self._give_up(stream, row, here.pop(row["message_id"]))
            found += [(stream, entry, fields) for entry, fields in here.items()]
        return found

    async def _claim_silent(self, stream: str) -> dict[Any, Any]:
        """Claim and hold the next messages that nobody held in the last `redeliver_after` ms. Returns their fields."""
        self._cursors[stream], entries, *_ = await self._redis.xautoclaim(
            stream,
            self._group.name,
            self._name,
            self._group.redeliver_after,
            start_id=self._cursors[stream],
            count=COUNT,
        )
        found = {entry: fields for entry, fields in entries if fields}
        self._held |= dict.fromkeys((stream, entry) for entry in found)
        return found

    async def _fresh(self, block: int | None) -> list[tuple[str, Any, Any]]:
        """Up to `COUNT` new messages of each stream. Waits up to `block` ms for them; `None`: does not wait."""
        streams: Any = dict.fromkeys(self._group.streams, ">")
        read: Any = await self._redis.xreadgroup(self._group.name, self._name, streams, count=COUNT, block=block)
        pairs = read.items() if isinstance(read, dict) else read or ()
        return [(_text(stream), entry, fields) for stream, entries in pairs for entry, fields in _flat(entries)]

    async def _give_up(self, stream: str, row: Any, fields: Any) -> None:
        """Move a message that no consumer could handle to the stream of dead letters. Adds id, group and deliveries."""
        letters, failed = stream + DEAD_LETTERS, row["times_delivered"] - 1
        letter: Any = {**fields, "entry": row["message_id"], "consumer": self._group.name, "deliveries": failed}
        try:
            await self._redis.xadd(letters, letter, maxlen=DEAD_LETTERS_KEPT, approximate=True)
        except ResponseError as error:
            logger.error("entry %s stays in %s, because %s refused it: %s", row["message_id"], stream, letters, error)  # noqa: TRY400  # Redis gives the reason
            return
        self._dead_letters[stream, self._group.name] += 1
        await self._redis.xack(stream, self._group.name, row["message_id"])
        logger.error(
            "entry %s of stream %s moved to %s after %d deliveries", row["message_id"], stream, letters, failed
        )

    async def _keep(self) -> None:
        """Renew the claims on the held messages, and remove dead consumers. Runs until cancelled.

        Without a renewal other consumers get a message after `redeliver_after`.
        """
        while True:
            end_if_cancelled()
            await asyncio.sleep(self._group.redeliver_after / 3000)
            try:
                for stream in self._group.streams if self._grouped else ():
                    held = await self._still_pending(stream, [entry for of, entry in self._held if of == stream])
                    if held:
                        await self._claim(stream, [row["message_id"] for row in held])
                    await self._forget_the_dead(stream)
            except RedisError as error:
                logger.warning("Redis: %s", error)

    async def _forget_the_dead(self, stream: str) -> None:
        """Remove dead consumers. A dead consumer stays until other consumers have taken its messages."""
        for found in await self._redis.xinfo_consumers(stream, self._group.name):
            silent = found["idle"] > FORGET_AFTER * self._group.redeliver_after
            if silent and not found["pending"] and found["name"] not in {self._name, self._name.encode()}:
                await self._redis.xgroup_delconsumer(stream, self._group.name, found["name"])

    async def _still_pending(self, stream: str, entries: Sequence[Any]) -> list[Any]:
        """The given entries that this consumer holds and has not acknowledged."""
        if not entries:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.xpending_range(stream, self._group.name, entry, entry, 1, self._name)
        return [row for rows in await pipeline.execute() for row in rows]

    async def _claim(
        self, stream: str, entries: list[Any], idle: int | None = None, retrycount: int | None = None
    ) -> None:
        """Claim these entries without counting a delivery. Sets their idle time to `idle` or 0, and `retrycount`."""
        await self._redis.xclaim(
            stream, self._group.name, self._name, 0, entries, idle=idle, retrycount=retrycount, justid=True
        )


def _flat(entries: Any) -> Any:
    """The entries of a stream. The protocol RESP3 nests them one level deeper."""
    return entries[0] if entries and isinstance(entries[0], list) else entries


def _message(stream: str, entry: Any, fields: Any) -> Message | None:
    """The message in an entry. `None` for an entry that is no message.

    Such an entry stays unacknowledged until it becomes a dead letter.
    """
    try:
        read = {_text(key): _text(value) for key, value in fields.items()}
        return Message(read["id"], stream, json.loads(read["payload"]), read.get("trace", ""))
    except (KeyError, ValueError):
        logger.exception(
            "entry %s of stream %s is not a message: expected the fields id and payload (JSON)", entry, stream
        )
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
