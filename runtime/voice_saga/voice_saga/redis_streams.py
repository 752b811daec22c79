"""Messages over Redis Streams (Redis 6.2 or later, Valkey). Needs the extra `redis`. Each event type has a stream.

A publisher needs permission for XADD. A consumer needs permission for XGROUP CREATE, XGROUP DELCONSUMER, XREADGROUP,
XCLAIM, XAUTOCLAIM, XPENDING, XINFO CONSUMERS and XACK. It also needs XADD to the stream of dead letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from voice_saga.arguments import check_at_least, check_seconds
from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import Message, to_json
from voice_saga.errors import MessagesRefusedError
from voice_saga.redis_consumer import Group, RedisConsumer
from voice_saga.transport import DeadLetters

__all__ = ["RedisStreams"]

MAX_LENGTH = 100_000
"""Default maximum length of a stream, in entries. The platform's three streams of that length, with payloads of
`PAYLOAD` bytes on average, take about 345 MB. A store without free memory refuses every XADD. A refused XADD
trims no stream, but XTRIM still works."""
PAYLOAD = 1024
"""Expected mean payload in bytes. A message names an event and the place of the data, and does not contain the data."""
Received = tuple[Message, Callable[[], Awaitable[None]]]


class RedisStreams:
    """A transport over one Redis server.

    - `max_length`: approximate number of entries that a stream keeps. Older entries are deleted even if they were not
      read. A consumer that is too slow misses the deleted entries.
    - `redeliver_after`: seconds before a message is delivered again, if its handler failed or its consumer is silent.
      The message may go to the same consumer again.
    - `max_deliveries`: number of failed deliveries after which a message moves to the stream of dead letters.
    - `block`: longest wait of one read, in seconds.

    Raises `ValueError` for a number out of range.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        max_length: int = MAX_LENGTH,
        redeliver_after: float = 60.0,
        max_deliveries: int = 10,
        block: float = 1.0,
    ) -> None:
        check_at_least(1, "RedisStreams", max_length=max_length, max_deliveries=max_deliveries)
        check_seconds("RedisStreams", redeliver_after=redeliver_after, block=block)
        self.dead_letters: DeadLetters = Counter()
        """Number of messages that this process moved to the stream of dead letters, by stream and consumer group."""
        self._redis = redis
        self._max_length = max_length
        self._max_deliveries = max_deliveries
        self._redeliver_after = max(1, int(redeliver_after * 1000))
        self._block = max(1, int(block * 1000))

    async def send(self, messages: Sequence[Message]) -> None:
        """Send all messages in one round trip.

        Raises `ConnectionError` if Redis does not answer, and `MessagesRefusedError` if it refuses some messages.
        """
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

    async def receive(self, types: Sequence[str], consumer: str) -> AsyncGenerator[Received, None]:
        """Yield the messages that the group `consumer` has not acknowledged. Reconnects after a lost connection."""
        group = Group(consumer, tuple(types), self._redeliver_after, self._max_deliveries, self._block)
        async with RedisConsumer(self._redis, group, self.dead_letters) as reader:
            while True:
                end_if_cancelled()
                for delivery in await reader.read():
                    yield delivery.message, partial(reader.acknowledge, delivery)
                    reader.let_go(delivery)
