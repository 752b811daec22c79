"""Messages out of the outbox, over any transport, to consumers that handle each once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from voice_saga.context import Message
from voice_saga.errors import MessagesRefusedError
from voice_saga.journal import Batch, Journal
from voice_saga.observation import NoTracing, Tracing
from voice_saga.record import Engine

__all__ = ["DeadLetters", "Handler", "Outbox", "Transport", "consume", "delivers", "starts"]

logger = logging.getLogger("voice_saga")
BATCH = 100
"""Messages of one transaction of the outbox."""
PAUSE_CAP = 5.0
"""Longest pause of an outbox whose journal or transport is away, in seconds."""
DeadLetters = Counter[tuple[str, str]]
"""Messages that nobody could handle, by stream and consumer."""
Handler = Callable[[Message], Awaitable[object]]
"""Takes one message; the message is acknowledged when it returns, and comes again where it raises.

It may come twice all the same: handle it under a key of its id, as `start` and `deliver` do, or ask
`voice_saga.postgresql.admit` in the transaction that the handling is part of.
"""


class Transport(Protocol):
    """Carries messages at least once. `voice_saga.redis_streams.RedisStreams` is one."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Hand over every message, in order.

        Raises `OSError` where it cannot, and `MessagesRefusedError` where it could all but some.
        """
        ...

    def receive(
        self, types: Sequence[str], consumer: str
    ) -> AsyncGenerator[tuple[Message, Callable[[], Awaitable[None]]], None]:
        """Messages of these types for the group `consumer`, each with what acknowledges it.

        Unacknowledged ones, also those of a consumer that died, come again.
        """
        ...


def end_if_cancelled() -> None:
    """Raises `CancelledError` in a task that was cancelled and whose driver took that for its own timeout.

    `asyncio.wait_for`, which redis-py waits with, does so before Python 3.12 when both come at once.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Outbox:
    """Sends what the journal holds, while it is entered. Any number of processes may."""

    def __init__(self, journal: Journal, transport: Transport, *, poll_interval: float = 0.2) -> None:
        self._journal = journal
        self._transport = transport
        self._poll_interval = poll_interval
        self.sent = self.refused = 0

    async def flush(self) -> int:
        """Send what is due now; how many were sent."""
        total = 0
        while True:
            async with self._journal.outbox(BATCH) as batch:
                if batch.messages:
                    await self._send(batch)
            sent = len(batch.messages) - len(batch.refused)
            total += sent
            self.sent += sent
            self.refused += len(batch.refused)
            if len(batch.messages) < BATCH or not sent:
                return total

    async def _send(self, batch: Batch) -> None:
        try:
            await self._transport.send(batch.messages)
        except MessagesRefusedError as error:
            batch.refused = error.reasons
            for place, reason in error.reasons.items():
                logger.error("message %s stays in the outbox: %s", batch.messages[place].id, reason)  # noqa: TRY400  # it has no more to say

    async def run(self) -> None:
        """Until it is cancelled, and by nothing else. What cannot be sent stays and is tried again."""
        pause = self._poll_interval
        while True:
            try:
                await self.flush()
                pause = self._poll_interval
            except Exception as error:  # a full disk or a missing privilege ends as well
                logger.warning("the outbox waits: %s", error, exc_info=not isinstance(error, OSError))
                pause = min(pause * 2, PAUSE_CAP)
            end_if_cancelled()
            await asyncio.sleep(pause)


async def consume(
    transport: Transport, consumer: str, handlers: Mapping[str, Handler], tracing: Tracing | None = None
) -> None:
    """Handle messages by type until cancelled. One that its handler fails on stays unacknowledged and comes again."""
    async with aclosing(transport.receive(tuple(handlers), consumer)) as received:
        async for message, acknowledge in received:
            end_if_cancelled()
            try:
                with (tracing or NoTracing()).message(message, consumer):
                    await handlers[message.type](message)
            except Exception:
                end_if_cancelled()
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
