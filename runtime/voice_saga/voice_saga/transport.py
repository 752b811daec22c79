"""Sends messages from the outbox over any transport, and handles received messages."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from voice_saga.arguments import check_seconds
from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import Message
from voice_saga.errors import MessagesRefusedError
from voice_saga.journal import Batch, Journal
from voice_saga.observation import NoTracing, Tracing
from voice_saga.record import Engine

__all__ = ["DeadLetters", "Handler", "Outbox", "Transport", "consume", "delivers", "starts"]

logger = logging.getLogger("voice_saga")
BATCH = 100
"""Largest number of messages in one transaction of the outbox."""
PAUSE_CAP = 5.0
"""Longest pause in seconds after an error of the journal or the transport."""
DeadLetters = Counter[tuple[str, str]]
"""Number of messages that a transport gave up after too many deliveries, by stream and consumer group."""
Handler = Callable[[Message], Awaitable[object]]
"""Handles one message. The message is acknowledged when the handler returns. If the handler raises, the transport
delivers the message again, or moves it to the dead letters. Even a handled message may arrive again. There are two ways
to make its effect happen once. Use the message's id as the key of the effect, as `starts` does. Or call
`voice_saga.postgresql.admit` in the handler's transaction."""


class Transport(Protocol):
    """Delivers messages at least once. An example is `voice_saga.redis_streams.RedisStreams`."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Send every message, in order.

        Raises `OSError` if sending fails, and `MessagesRefusedError` if the transport refuses some of the messages.
        """
        ...

    def receive(
        self, types: Sequence[str], consumer: str
    ) -> AsyncGenerator[tuple[Message, Callable[[], Awaitable[None]]], None]:
        """Messages of these types for the group `consumer`, each with a function that acknowledges it.

        Messages that were not acknowledged are delivered again, including the messages of a dead consumer. After too
        many deliveries a transport may move a message to the dead letters instead.
        """
        ...


class Outbox:
    """Sends the messages of a journal. Start it with `run`.

    If the journal is in PostgreSQL, several processes may run an outbox. If it is in SQLite, only one process may.
    Raises `ValueError` for a `poll_interval` that is not above 0 s.
    """

    def __init__(self, journal: Journal, transport: Transport, *, poll_interval: float = 0.2) -> None:
        check_seconds("an outbox", poll_interval=poll_interval)
        self._journal = journal
        self._transport = transport
        self._poll_interval = poll_interval
        self.sent = self.refused = 0

    async def flush(self) -> int:
        """Send due messages until none is left, or a whole batch is refused. Returns the number of messages sent."""
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
                logger.error("message %s stays in the outbox: %s", batch.messages[place].id, reason)  # noqa: TRY400  # the traceback says no more

    async def run(self) -> None:
        """Send messages until cancelled. After an error the messages stay in the outbox and are sent later."""
        pause = self._poll_interval
        while True:
            try:
                await self.flush()
                pause = self._poll_interval
            except Exception as error:  # such as a full disk: somebody may mend it
                logger.warning(
                    "the outbox could not send and tries again: %s", error, exc_info=not isinstance(error, OSError)
                )
                pause = min(pause * 2, PAUSE_CAP)
            end_if_cancelled()
            await asyncio.sleep(pause)


async def consume(
    transport: Transport, consumer: str, handlers: Mapping[str, Handler], tracing: Tracing | None = None
) -> None:
    """Handle messages by type until cancelled.

    A message whose handler fails stays unacknowledged: the transport delivers it again or moves it to the dead letters.
    Raises `ValueError` if there are no handlers.
    """
    if not handlers:
        raise ValueError(f"consumer {consumer} has no handlers; expected a handler for each type of message")
    async with aclosing(transport.receive(tuple(handlers), consumer)) as received:
        async for message, acknowledge in received:
            end_if_cancelled()
            try:
                with (tracing or NoTracing()).message(message, consumer):
                    await handlers[message.type](message)
            except (Exception, asyncio.CancelledError):  # CancelledError: work inside the handler was cancelled
                end_if_cancelled()
                logger.exception(
                    "the handler of message %s (%s) failed; the message is redelivered or becomes a dead letter",
                    message.id,
                    message.type,
                )
            else:
                await acknowledge()


def starts(engine: Engine, saga: str) -> Handler:
    """A handler that starts `saga` with the payload. The saga gets the message's id, so a duplicate starts no saga."""

    async def handle(message: Message) -> None:
        await engine.start(saga, message.payload, saga_id=message.id)

    return handle


def delivers(engine: Engine) -> Handler:
    """A handler that delivers a reply: `{"saga_id": …, "step": …}` with a `result` or an `error`.

    The handler drops a reply to an unknown saga with a warning. A saga exists before its steps send requests, so an
    unknown saga was probably deleted after its end.
    """

    async def handle(message: Message) -> None:
        reply: Any = message.payload
        saga_id, step = reply["saga_id"], reply["step"]
        if not await engine.deliver(saga_id, step, reply.get("result"), error=reply.get("error")):
            logger.warning("message %s is dropped: it replies to saga %s, which does not exist", message.id, saga_id)

    return handle
