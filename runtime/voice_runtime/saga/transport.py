"""Messages out of the outbox, over any transport, to consumers that handle each once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from voice_runtime.saga.context import Message
from voice_runtime.saga.errors import JournalUnavailableError
from voice_runtime.saga.journal import Journal
from voice_runtime.saga.observation import NoTracing, Tracing
from voice_runtime.saga.record import Engine

logger = logging.getLogger("voice_runtime.saga")
BATCH = 100
"""Messages of one transaction of the outbox."""
Handler = Callable[[Message], Awaitable[object]]
"""Takes one message; the message is acknowledged when it returns, and comes again where it raises.

It may come twice all the same: handle it under a key of its id, as `start` and `deliver` do, or ask
`voice_runtime.saga.postgresql.admit` in the transaction that the handling is part of.
"""


class Transport(Protocol):
    """Carries messages at least once. `voice_runtime.saga.redis_streams.RedisStreams` is one."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand over every message, in order; raises `ConnectionError` or `OSError` where it cannot."""
        ...

    def receive(
        self, types: Sequence[str], consumer: str
    ) -> AsyncIterator[tuple[Message, Callable[[], Awaitable[None]]]]:
        """Messages of these types for the group `consumer`, each with what acknowledges it.

        Unacknowledged ones, also those of a consumer that died, come again.
        """
        ...


class Outbox:
    """Sends what the journal holds, while it is entered. Any number of processes may."""

    def __init__(self, journal: Journal, transport: Transport, *, poll_interval: float = 0.2) -> None:
        self._journal = journal
        self._transport = transport
        self._poll_interval = poll_interval
        self.sent = 0

    async def flush(self) -> int:
        """Send what is there now; how many that was."""
        total = 0
        while True:
            async with self._journal.outbox(BATCH) as messages:
                if messages:
                    await self._transport.send(messages)
            total += len(messages)
            self.sent += len(messages)
            if len(messages) < BATCH:
                return total

    async def run(self) -> None:
        """Until it is cancelled. What cannot be sent stays and is tried again."""
        while True:
            try:
                await self.flush()
            except (JournalUnavailableError, OSError) as error:
                logger.warning("the outbox waits: %s", error)
            await asyncio.sleep(self._poll_interval)


async def consume(
    transport: Transport, consumer: str, handlers: Mapping[str, Handler], tracing: Tracing | None = None
) -> None:
    """Handle messages by type until cancelled. One that its handler fails on stays unacknowledged and comes again."""
    async for message, acknowledge in transport.receive(tuple(handlers), consumer):
        try:
            with (tracing or NoTracing()).message(message, consumer):
                await handlers[message.type](message)
        except Exception:
            logger.exception("message %s (%s) comes again", message.id, message.type)
        else:
            await acknowledge()


def starts(engine: Engine, saga: str) -> Handler:
    """Starts `saga` with the payload; the message's id is the saga's, so a message that comes twice starts one."""

    async def handle(message: Message) -> None:
        await engine.start(saga, message.payload, saga_id=message.id)

    return handle


def delivers(engine: Engine) -> Handler:
    """Delivers a reply: `{"saga_id": …, "step": …}` with a `result` or an `error`.

    A saga is there before its steps ask anybody, so a reply to none comes too late, and is dropped with a warning.
    """

    async def handle(message: Message) -> None:
        reply: Any = message.payload
        saga_id, step = reply["saga_id"], reply["step"]
        if not await engine.deliver(saga_id, step, reply.get("result"), error=reply.get("error")):
            logger.warning("message %s replies to saga %s, which is not here", message.id, saga_id)

    return handle
