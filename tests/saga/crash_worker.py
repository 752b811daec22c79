"""Workers that die at a given write. Their steps write rows into PostgreSQL, and the test counts the rows.

    python -m tests.saga.crash_worker DSN

Each line on standard input is a `Job` as JSON. For each line, the process

1. forks a worker. A fork saves the time of the imports.
2. waits for the worker. If the worker does not die, it prints its number of writes by kind, such as `{"start": 2}`.
3. prints the signal that killed the worker, or 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from voice_saga import Definition, JournalEngine, Message, Reply, StepContext
from voice_saga.barrier import once
from voice_saga.journal import Batch, Claim
from voice_saga.postgresql import PostgresqlJournal
from voice_saga.transport import Outbox

from tests.saga.definitions import saga, step

LEASE = 2.0
"""Lease in seconds: long enough for a living worker on a busy machine, and short enough for a quick takeover."""
STAGES = (step("reserve"), step("vectors"), step("graph", with_previous=True), step("pay"), step("ship"))
STEPS = tuple(each.name for each in STAGES)
EFFECTS = "CREATE TABLE effects (saga_id text, step text, branch text)"
DELIVERIES = "CREATE TABLE deliveries (message_id text)"
DUE = "SELECT 1 FROM saga.sagas WHERE due <= clock_timestamp() AND due < 'infinity' LIMIT 1"


@dataclass
class Job:
    """The sagas that a worker starts, and the write at which the worker dies."""

    round: int
    """Part of the ids of the worker's sagas."""
    kind: str = ""
    """Kind of the write. If it is empty, the worker does not die."""
    number: int = 0
    """Number of the write among the writes of its kind, from 1."""
    after: bool = False
    """True if the worker dies after the write instead of before it."""
    stop: bool = False
    """True if the worker pauses itself with SIGSTOP in the middle of a step."""

    @property
    def renews(self) -> bool:
        """True if the worker must renew a lease: it dies at the renewal, or it counts all writes. So a step sleeps."""
        return not self.stop and self.kind in {"", "renew"}


def definitions(pool: Any, engine: list[JournalEngine], job: Job | None = None) -> list[Definition]:
    async def effect(context: StepContext) -> Any:
        if context.step == "reserve" and context.branch == "action":
            context.publish("goods.reserved", context.saga_id)
        if job and job.stop and context.step == "vectors":
            _stop()
        if job and job.renews and context.step == "vectors":
            await asyncio.sleep(LEASE * 0.4)
        async with pool.acquire() as connection:
            return await once(connection, context, lambda: _count(connection, context))

    async def confirmed_later(context: StepContext) -> Any:
        await effect(context)
        await engine[0].deliver(context.saga_id, "pay", "paid")
        return Reply.LATER

    async def refuse(_: StepContext) -> Any:
        raise ValueError("no such street")

    names = [name for each in STAGES for name in (each.name, each.compensation or "")]
    return [
        Definition(saga(*STAGES, name="completes"), dict.fromkeys(names, effect) | {"pay": confirmed_later}),
        Definition(saga(*STAGES, name="fails"), dict.fromkeys(names, effect) | {"ship": refuse}),
    ]


async def _count(connection: Any, context: StepContext) -> None:
    await connection.execute("INSERT INTO effects VALUES ($1, $2, $3)", context.saga_id, context.step, context.branch)


def _stop() -> None:
    sys.stdout.write("stopping\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSTOP)


class DyingJournal(PostgresqlJournal):
    """Kills its process before or after the n-th write of a kind. Empty writes, such as no messages, do not count."""

    def __init__(self, dsn: str, job: Job) -> None:
        super().__init__(dsn)
        self._job = job
        self.writes: Counter[str] = Counter()

    async def start(self, *arguments: Any) -> bool:
        with self._write("start"):
            return await super().start(*arguments)

    async def append(self, *arguments: Any, **options: Any) -> None:
        with self._write("append"):
            await super().append(*arguments, **options)

    async def claim(self, *arguments: Any) -> list[Claim]:
        with self._write("claim", await self._fetch(DUE)):
            return await super().claim(*arguments)

    async def renew(self, claims: Any, lease: float) -> set[str]:
        with self._write("renew", claims):
            return await super().renew(claims, lease)

    async def deliver(self, *arguments: Any) -> bool:
        with self._write("deliver"):
            return await super().deliver(*arguments)

    @asynccontextmanager
    async def outbox(self, limit: int) -> AsyncIterator[Batch]:
        async with AsyncExitStack() as leaving:
            batch = await leaving.enter_async_context(super().outbox(limit))
            with self._write("send", batch.messages):
                yield batch
            with self._write("forget", batch.messages):
                await leaving.aclose()

    @contextmanager
    def _write(self, kind: str, what: object = "it") -> Iterator[None]:
        self.writes[kind] += bool(what)
        here = bool(what) and (kind, self.writes[kind]) == (self._job.kind, self._job.number)
        if here and not self._job.after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if here:
            os.kill(os.getpid(), signal.SIGKILL)


def engine_of(journal: PostgresqlJournal, known: list[Definition]) -> JournalEngine:
    """An engine that parks no saga, however many workers die."""
    return JournalEngine(journal, known, lease=LEASE, poll_interval=0.05, grace=0.1, max_claims=1_000_000)


class Wire:
    """A transport that records messages in PostgreSQL, so that the messages survive the death of the sender."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def send(self, messages: Sequence[Message]) -> None:
        await self._pool.executemany("INSERT INTO deliveries VALUES ($1)", [(message.id,) for message in messages])

    def receive(self, types: Any, consumer: str) -> Any:
        raise NotImplementedError


async def work(dsn: str, job: Job) -> tuple[int, Counter[str]]:
    """Returns the number of lost leases, and the number of writes by kind."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
        own: list[JournalEngine] = []
        journal = DyingJournal(dsn, job)
        engine = engine_of(journal, definitions(pool, own, job))
        own.append(engine)
        if not job.stop:  # `open` runs no sagas, so the engine below claims this saga
            await engine.open()
            await engine.start("fails", saga_id=f"fails-{job.round}")
            await engine.close()
        async with engine:
            await engine.start("completes", saga_id=f"completes-{job.round}")
            for name in ("completes",) if job.stop else ("completes", "fails"):
                await engine.wait(f"{name}-{job.round}", 60)
            if not job.stop:
                await Outbox(journal, Wire(pool)).flush()
        return engine.observation.leases_lost, journal.writes


def main() -> None:
    dsn = sys.argv[1]
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _, writes = asyncio.run(work(dsn, Job(**json.loads(line))))
            sys.stdout.write(f"{json.dumps(writes)}\n")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
