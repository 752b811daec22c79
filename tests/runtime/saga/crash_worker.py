"""A worker that dies where it is told to, and whose steps leave rows in PostgreSQL that can be counted.

    python -m tests.runtime.saga.crash_worker DSN

forks a worker for each line of JSON on its standard input and answers with a line: the signal that ended it, or 0.
Forking spares each round the imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from voice_runtime.saga import Definition, JournalEngine, Reply, StepContext
from voice_runtime.saga.barrier import once
from voice_runtime.saga.postgresql import PostgresqlJournal

from tests.runtime.saga.definitions import saga, step

LEASE = 0.6
STAGES = (step("reserve"), step("vectors"), step("graph", with_previous=True), step("pay"), step("ship"))
STEPS = tuple(each.name for each in STAGES)
EFFECTS = "CREATE TABLE effects (saga_id text, step text, branch text)"


@dataclass
class Job:
    """What a worker starts, and the write at which it dies; 0 is never."""

    round: int
    kill_at: int = 0
    after: bool = False
    stop: bool = False


def definitions(pool: Any, engine: list[JournalEngine], *, stop: bool = False) -> list[Definition]:
    """One saga that completes, its payment confirmed by an event, and one that fails at its last step."""

    async def effect(context: StepContext) -> Any:
        if stop and context.step == "vectors":
            _stop()
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
    """Say so, and stop the whole process in the middle of a step, until somebody lets it go on."""
    sys.stdout.write("stopping\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGSTOP)


class DyingJournal(PostgresqlJournal):
    """Ends the process by SIGKILL right before or right after its n-th write."""

    def __init__(self, dsn: str, job: Job) -> None:
        super().__init__(dsn)
        self._job = job
        self._writes = 0

    async def start(self, *arguments: Any) -> bool:
        with self._write():
            return await super().start(*arguments)

    async def append(self, *arguments: Any, **options: Any) -> None:
        with self._write():
            await super().append(*arguments, **options)

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._writes += 1
        here = self._writes == self._job.kill_at
        if here and not self._job.after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield
        if here:
            os.kill(os.getpid(), signal.SIGKILL)


def engine_of(journal: PostgresqlJournal, known: list[Definition]) -> JournalEngine:
    """One that takes over quickly; that its workers die again and again is not the fault of a step."""
    return JournalEngine(journal, known, lease=LEASE, poll_interval=0.05, grace=0.1, max_claims=1_000_000)


async def work(dsn: str, job: Job) -> int:
    """Start two sagas, and run whatever is due until they have ended; how many leases were lost."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=3) as pool:
        own: list[JournalEngine] = []
        engine = engine_of(DyingJournal(dsn, job), definitions(pool, own, stop=job.stop))
        own.append(engine)
        async with engine:
            names = ("completes",) if job.stop else ("completes", "fails")
            for name in names:
                await engine.start(name, saga_id=f"{name}-{job.round}")
            for name in names:
                await engine.wait(f"{name}-{job.round}", 60)
        return engine.observation.leases_lost


def main() -> None:
    dsn = sys.argv[1]
    for line in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(work(dsn, Job(**json.loads(line))))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
