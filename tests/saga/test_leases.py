from __future__ import annotations

import asyncio

from voice_policies import Duration
from voice_saga import JournalEngine, StepContext
from voice_saga.postgresql import PostgresqlJournal

from tests.saga.definitions import Log, saga, step

LEASE = 3.0
"""Lease in seconds. A worker renews it every second, so on a busy machine a renewal may be up to 2 s late."""


async def test_leases_are_renewed_while_all_connections_are_busy(database: str) -> None:
    """The step holds all connections of the journal, as senders do while Redis is slow."""
    log, journal = Log(), PostgresqlJournal(database, connections=2)

    async def send(_: StepContext) -> None:
        async with journal.outbox(1), journal.outbox(1):
            await asyncio.sleep(3 * LEASE)

    log.does("pay", send)
    policy = saga(step("pay", timeout=Duration("50s"), attempt_timeout=Duration("20s")))
    async with (
        JournalEngine(journal, [log.definition(policy)], lease=LEASE) as engine,
        JournalEngine(PostgresqlJournal(database), [log.definition(policy)], lease=LEASE) as other,
    ):
        record = await engine.wait(await engine.start("order"), 60)
    assert (record.state, log.done) == ("completed", ["pay"])
    assert engine.observation.leases_lost == other.observation.leases_lost == 0
