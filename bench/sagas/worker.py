"""One process of the bench: runs `CONCURRENCY` sagas at a time, each with four steps that do nothing.

    python -m bench.sagas.worker sqlite|postgresql|temporal ADDRESS SECONDS

ADDRESS is the file of SQLite, the DSN of PostgreSQL, or the host and port of Temporal. The process prints `ready`,
waits for a line on standard input, and runs. It then prints the number of ended steps and the seconds that the run
took.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from typing import Any

from temporalio.client import Client
from voice_policies import Duration, Saga, SagaStep
from voice_runtime import Event
from voice_saga import Definition, JournalEngine, SqliteJournal, StepContext
from voice_saga.postgresql import PostgresqlJournal
from voice_saga.temporal import TemporalEngine

STEPS = ("parse", "embed", "store", "link")
CONCURRENCY = 32


class Ended:
    """Tells callers that their sagas have completed, without queries to the journal."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: defaultdict[str, asyncio.Future[None]] = defaultdict(self._loop.create_future)

    def on_event(self, event: Event) -> None:
        """End the wait for a saga that has completed or compensates. Temporal's worker calls this in a thread."""
        if event.after == "completed" or event.after.startswith("compensating:"):
            self._loop.call_soon_threadsafe(self._end, event)

    def _end(self, event: Event) -> None:
        ended = self.of(event.target.rpartition("/")[2])
        if event.after == "completed":
            ended.set_result(None)
        else:
            ended.set_exception(RuntimeError(f"{event.target} is {event.after}"))

    def of(self, saga_id: str) -> asyncio.Future[None]:
        """A future that ends when the saga has completed. It raises `RuntimeError` if the saga compensates."""
        return self._waiting[saga_id]


async def nothing(_: StepContext) -> None:
    """A step without an effect, because the bench measures only the journals and Temporal."""


def definition() -> Definition:
    """Four steps in sequence, each with a compensation."""
    steps = tuple(SagaStep(name=name, compensation=f"undo-{name}") for name in STEPS)
    names = [name for step in steps for name in (step.name, step.compensation or "")]
    policy = Saga(name="bench", steps=steps, timeout=Duration("5m"))
    return Definition(policy, dict.fromkeys(names, nothing))


async def engine_of(kind: str, address: str, ended: Ended) -> Any:
    """The engine of a kind (`sqlite`, `postgresql` or `temporal`), not yet running."""
    if kind == "temporal":
        client = await Client.connect(address)
        return TemporalEngine(client, [definition()], listeners=[ended], concurrency=CONCURRENCY)
    journal = SqliteJournal(address) if kind == "sqlite" else PostgresqlJournal(address, connections=8)
    return JournalEngine(journal, [definition()], listeners=[ended], concurrency=2 * CONCURRENCY)


async def main(kind: str, address: str, seconds: float) -> None:
    """Run a closed loop: each caller starts its next saga when its previous saga has completed."""
    ended = Ended()
    async with await engine_of(kind, address, ended) as engine:
        await ended.of(await engine.start("bench"))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begun = time.perf_counter()

        async def caller() -> int:
            sagas = 0
            while time.perf_counter() - begun < seconds:
                await ended.of(await engine.start("bench"))
                sagas += 1
            return sagas

        sagas = sum(await asyncio.gather(*(caller() for _ in range(CONCURRENCY))))
        print(sagas * len(STEPS), time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
