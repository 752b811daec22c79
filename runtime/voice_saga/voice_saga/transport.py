"""Sends messages from the outbox over any transport, to consumers that handle each once."""

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
"""Number of messages in one transaction of the outbox."""
PAUSE_CAP = 5.0
"""Longest pause of an outbox whose journal or transport is down, in seconds."""
DeadLetters = Counter[tuple[str, str]]
"""Number of messages that nobody could handle, by stream and consumer."""
Handler = Callable[[Message], Awaitable[object]]
"""Handles one message. The message is acknowledged when it returns, and delivered again if it raises. It may arrive
twice anyway: handle it under a key of its id, as `start` and `deliver` do, or call `voice_saga.postgresql.admit` in the
handler's transaction."""


class Transport(Protocol):
    """Carries messages at least once. `voice_saga.redis_streams.RedisStreams` is one."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Send every message, in order.

        Raises `OSError` if it fails, and `MessagesRefusedError` if only some are refused.
        """
        ...

    def receive(
        self, types: Sequence[str], consumer: str
    ) -> AsyncGenerator[tuple[Message, Callable[[], Awaitable[None]]], None]:
        """Messages of these types for the group `consumer`, each with a function that acknowledges it.

        Unacknowledged ones, also those of a dead consumer, are delivered again.
        """
        ...


def end_if_cancelled() -> None:
    """Raise `CancelledError` in a cancelled task whose driver took the cancellation for its own timeout.

    `asyncio.wait_for`, which redis-py uses, does so before Python 3.12 if both happen at once.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Outbox:
    """Sends the journal's messages while it is entered. Any number of processes may run one."""

    def __init__(self, journal: Journal, transport: Transport, *, poll_interval: float = 0.2) -> None:
        self._journal = journal
        self._transport = transport
        self._poll_interval = poll_interval
        self.sent = self.refused = 0

    async def flush(self) -> int:
        """Send due messages. Returns the number of sent ones."""
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
                logger.error("message %s stays in the outbox: %s", batch.messages[place].id, reason)  # noqa: TRY400  # the traceback adds nothing

    async def run(self) -> None:
        """Run until cancelled. Nothing else ends it: messages that cannot be sent stay and are retried."""
        pause = self._poll_interval
        while True:
            try:
                await self.flush()
                pause = self._poll_interval
            except Exception as error:  # also a full disk or a missing privilege, which end as well
                logger.warning("the outbox waits: %s", error, exc_info=not isinstance(error, OSError))
                pause = min(pause * 2, PAUSE_CAP)
            end_if_cancelled()
            await asyncio.sleep(pause)


async def consume(
    transport: Transport, consumer: str, handlers: Mapping[str, Handler], tracing: Tracing | None = None
) -> None:
    """Handle messages by type until cancelled.

    A message whose handler fails stays unacknowledged and is delivered again.
    """
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
    """Starts `saga` with the payload. The message's id is the saga's, so a duplicate starts nothing."""

    async def handle(message: Message) -> None:
        await engine.start(saga, message.payload, saga_id=message.id)

    return handle


def delivers(engine: Engine) -> Handler:
    """Delivers a reply: `{"saga_id": …, "step": …}` with a `result` or an `error`.

    A saga exists before its steps send requests, so a reply to an unknown saga is late. It is dropped with a warning.
    """

    async def handle(message: Message) -> None:
        reply: Any = message.payload
        saga_id, step = reply["saga_id"], reply["step"]
        if not await engine.deliver(saga_id, step, reply.get("result"), error=reply.get("error")):
            logger.warning("message %s replies to saga %s, which is not here", message.id, saga_id)

    return handle
