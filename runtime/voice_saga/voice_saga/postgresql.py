"""The journal in PostgreSQL, for any number of workers. Needs the extra `postgresql`.

A write of transitions takes one round trip. The module uses asyncpg and not psycopg, because asyncpg needs about half
of psycopg's processor time for a step. asyncpg speaks the binary protocol from asyncio, without libpq, and prepares
each statement once per connection. PgBouncer supports prepared statements from version 1.21 on.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg

from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import Message, to_json
from voice_saga.errors import JournalUnavailableError, LeaseLostError
from voice_saga.journal import Batch, Claim, Outcome
from voice_saga.migrations import scripts
from voice_saga.progress import Entry, State
from voice_saga.record import SagaRecord, SagaSummary

__all__ = ["PostgresqlJournal", "admit", "migrate", "publish"]

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"
MIGRATION_LOCK = 0x5A6A
"""Key of the advisory lock with which one process at a time creates the tables."""
UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server shuts down or starts up, or cancelled the query
    asyncpg.ReadOnlySQLTransactionError,  # a primary that became a replica
    asyncpg.TooManyConnectionsError,
)

START = """
WITH saga AS (
    INSERT INTO saga.sagas (id, name, version, fingerprint, input, trace, state, owner, epoch, due, entries, claims)
    VALUES ($1, $2, $3, $4, $5, $6, 'running', $7, 1,
            clock_timestamp() + CASE WHEN $7::text IS NULL THEN interval '0' ELSE make_interval(secs => $8) END,
            cardinality($9::text[]), CASE WHEN $7::text IS NULL THEN 0 ELSE 1 END)
    ON CONFLICT DO NOTHING RETURNING id)
INSERT INTO saga.entries (saga_id, sequence, kind, step, data, epoch)
SELECT saga.id, entry.sequence, entry.kind, entry.step, entry.data::json, 1
FROM saga, unnest($9::text[], $10::text[], $11::text[]) WITH ORDINALITY AS entry (kind, step, data, sequence)
RETURNING saga_id"""

_TAKEN = """
RETURNING saga.id, name, version, fingerprint, input, trace, epoch, claims, signals,
          extract(epoch FROM clock_timestamp() - started_at)::float8 AS age"""
_TAKE = """
UPDATE saga.sagas AS saga SET owner = $1, epoch = epoch + 1, claims = claims + 1,
    due = clock_timestamp() + make_interval(secs => $2)"""
CLAIM = f"""
WITH ready AS (
    SELECT id FROM saga.sagas WHERE due <= clock_timestamp() AND due < 'infinity'
    ORDER BY due LIMIT $3 FOR UPDATE SKIP LOCKED)
{_TAKE} FROM ready WHERE saga.id = ready.id {_TAKEN}"""  # noqa: S608  # the parts are constants of this module
SEIZE = f"{_TAKE} WHERE id = $3 {_TAKEN}"

ENTRIES = """
SELECT saga_id, kind, step, data, extract(epoch FROM at)::float8 AS at,
       extract(epoch FROM clock_timestamp() - at)::float8 AS age
FROM saga.entries WHERE saga_id = ANY($1::text[]) ORDER BY saga_id, sequence"""

APPEND = """
WITH saga AS (
    UPDATE saga.sagas SET state = $3, reason = $4, entries = entries + cardinality($5::text[]),
        claims = 0,
        updated_at = CASE WHEN cardinality($5::text[]) > 0 THEN clock_timestamp() ELSE updated_at END,
        owner = CASE WHEN $6 THEN NULL ELSE owner END,
        due = CASE WHEN NOT $6 THEN due
                   WHEN signals > $7 THEN clock_timestamp()
                   WHEN $8::float8 = 'infinity' THEN 'infinity'
                   ELSE clock_timestamp() + make_interval(secs => $8) END
    WHERE id = $1 AND epoch = $2 AND owner IS NOT NULL AND due > clock_timestamp()
    RETURNING id, epoch, entries),
message AS (
    INSERT INTO saga.outbox (id, type, payload, trace)
    SELECT message.* FROM saga, unnest($11::text[], $12::text[], $13::json[], $14::text[]) AS message),
entry AS (
    INSERT INTO saga.entries (saga_id, sequence, kind, step, data, epoch)
    SELECT saga.id, saga.entries - cardinality($5::text[]) + entry.sequence, kind, step, data::json, saga.epoch
    FROM saga, unnest($5::text[], $9::text[], $10::text[]) WITH ORDINALITY AS entry (kind, step, data, sequence))
SELECT id FROM saga"""

RENEW = """
UPDATE saga.sagas AS saga SET due = clock_timestamp() + make_interval(secs => $3)
FROM unnest($1::text[], $2::bigint[]) AS claim (id, epoch)
WHERE saga.id = claim.id AND saga.epoch = claim.epoch AND owner IS NOT NULL AND due > clock_timestamp()
RETURNING saga.id"""
RELEASE = """
UPDATE saga.sagas SET owner = NULL, due = clock_timestamp(), claims = greatest(claims - 1, 0)
WHERE owner = $1 AND due > clock_timestamp()"""

DELIVER = """
WITH outcome AS (
    INSERT INTO saga.outcomes (saga_id, step, result, error, trace)
    SELECT id, $2, $3, $4, $5 FROM saga.sagas WHERE id = $1 ON CONFLICT DO NOTHING RETURNING saga_id)
UPDATE saga.sagas SET signals = signals + 1,
    due = CASE WHEN state = 'waiting' AND owner IS NULL THEN clock_timestamp() ELSE due END
FROM outcome WHERE id = saga_id"""

SUMMARY = """
SELECT id, name, version, state, reason, extract(epoch FROM started_at)::float8 AS started_at,
       extract(epoch FROM updated_at)::float8 AS updated_at"""
UNFINISHED = """
SELECT name, state, count(*) FROM saga.sagas WHERE state NOT IN ('completed', 'compensated', 'abandoned')
GROUP BY name, state"""
TAKE_MESSAGES = """
SELECT sequence, id, type, payload, trace FROM saga.outbox WHERE due <= clock_timestamp()
ORDER BY sequence LIMIT $1 FOR UPDATE SKIP LOCKED"""
REFUSED = """
UPDATE saga.outbox SET refusals = refusals + 1,
    due = clock_timestamp() + make_interval(secs => 1 << least(refusals, 6))
WHERE sequence = ANY($1::bigint[])"""


async def migrate(connection: Connection) -> None:
    """Create the missing tables, in one transaction."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        for script in scripts("postgresql").values():
            await connection.execute(script)


async def publish(connection: Connection, message: Message) -> None:
    """Send a message if, and only if, the connection's transaction commits."""
    await connection.execute(
        "INSERT INTO saga.outbox (id, type, payload, trace) VALUES ($1, $2, $3, $4)",
        message.id,
        message.type,
        to_json(message.payload, f"message {message.type}"),
        message.trace,
    )


async def admit(connection: Connection, consumer: str, message_id: str) -> bool:
    """True if the message is new to the consumer. The message counts as handled when the transaction commits."""
    done = await connection.execute(
        "INSERT INTO saga.inbox (consumer, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING", consumer, message_id
    )
    return done == "INSERT 0 1"


class PostgresqlJournal:
    """The journal in the database `dsn`.

    It opens at most `connections` connections. A worker opens one more connection, so that busy connections cannot
    delay the renewal of leases.
    """

    def __init__(self, dsn: str, *, connections: int = 5) -> None:
        self._dsn = dsn
        self._connections = connections
        self._pool: asyncpg.Pool[Any] | None = None
        self._leases: asyncpg.Pool[Any] | None = None
        """The connection for renewals. It is a pool of one, because a pool reconnects after a lost connection."""

    async def open(self, *, worker: bool) -> None:
        """Connect. Raises `JournalUnavailableError` if this fails, or if `migrate` has not created the tables."""
        try:
            await self._open(worker=worker)
        except BaseException:
            await self.close()  # an attempt that failed leaves no connections
            raise

    async def _open(self, *, worker: bool) -> None:
        try:
            self._pool = await self._connect(self._connections)
            self._leases = await self._connect(1) if worker else self._pool
            await self._fetch("SELECT 1 FROM saga.sagas LIMIT 0")
        except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError) as error:
            raise JournalUnavailableError(
                f"PostgreSQL: {error}; run the scripts of voice_saga/migrations/postgresql, "
                "and grant the user access to the tables of the schema saga"
            ) from error
        except (*UNAVAILABLE, asyncpg.PostgresError) as error:
            raise JournalUnavailableError(f"PostgreSQL: {error}") from error

    async def _connect(self, connections: int) -> asyncpg.Pool[Any]:
        return await asyncpg.create_pool(
            self._dsn, min_size=1, max_size=connections, reset=_skip_reset, command_timeout=30
        )

    async def close(self) -> None:
        """Disconnect."""
        for pool in (self._pool, self._leases):
            if pool is not None:
                pool.terminate()

    @asynccontextmanager
    async def _connection(
        self, pool: asyncpg.Pool[Any] | None = None
    ) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[Any]]:
        pool = pool or self._pool
        if pool is None:
            raise JournalUnavailableError("PostgreSQL is not open: use the engine in `async with`, or call `open`")
        try:
            async with pool.acquire() as connection:
                yield connection
        except UNAVAILABLE as error:
            end_if_cancelled()  # the error of a rollback must not hide the cancellation
            raise JournalUnavailableError(f"PostgreSQL: {type(error).__name__}: {error}") from error

    async def _fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def start(self, claim: Claim, owner: str | None, lease: float) -> bool:
        """Write the saga and its first entries in one transaction."""
        rows = await self._fetch(
            START,
            claim.id,
            claim.name,
            claim.version,
            claim.fingerprint,
            to_json(claim.input, "the input"),
            claim.trace,
            owner,
            lease,
            *_columns(claim.entries),
        )
        return bool(rows)

    async def claim(self, owner: str, limit: int, lease: float) -> list[Claim]:
        """Take due sagas with `FOR UPDATE SKIP LOCKED`, so that workers do not wait for each other."""
        return await self._claims(await self._fetch(CLAIM, owner, lease, limit))

    async def seize(self, saga_id: str, owner: str, lease: float) -> Claim | None:
        """Take the saga from its holder. The saga's new epoch makes the journal refuse the holder's writes."""
        claims = await self._claims(await self._fetch(SEIZE, owner, lease, saga_id))
        return claims[0] if claims else None

    async def _claims(self, rows: list[asyncpg.Record]) -> list[Claim]:
        claims = {row["id"]: Claim(**{**row, "input": json.loads(row["input"]), "entries": []}) for row in rows}
        if claims:
            for row in await self._fetch(ENTRIES, list(claims)):
                claims[row["saga_id"]].entries.append(_entry(row))
        return list(claims.values())

    async def append(  # noqa: PLR0913  # the parts of one write
        self,
        claim: Claim,
        entries: Sequence[Entry],
        state: State,
        *,
        reason: str = "",
        messages: Sequence[Message] = (),
        release: float | None = None,
    ) -> None:
        """Write everything in one transaction and one round trip."""
        kinds, steps, data = _columns(entries)
        rows = await self._fetch(
            APPEND,
            claim.id,
            claim.epoch,
            state,
            reason,
            kinds,
            release is not None,
            claim.signals,
            release or 0.0,
            steps,
            data,
            [message.id for message in messages],
            [message.type for message in messages],
            [to_json(message.payload, f"message {message.type}") for message in messages],
            [message.trace for message in messages],
        )
        if not rows:
            raise LeaseLostError(f"saga {claim.id}: the lease of epoch {claim.epoch} has expired or was taken over")

    async def renew(self, claims: Collection[Claim], lease: float) -> set[str]:
        """Extend all leases in one transaction."""
        ids, epochs = [claim.id for claim in claims], [claim.epoch for claim in claims]
        async with self._connection(self._leases) as connection:
            return {row["id"] for row in await connection.fetch(RENEW, ids, epochs, lease)}

    async def release(self, owner: str) -> None:
        """Release all sagas whose lease the owner still has, in one transaction."""
        await self._fetch(RELEASE, owner)

    async def deliver(self, saga_id: str, outcome: Outcome) -> bool:
        """Store the outcome and increment `signals`. So a worker notices the outcome before it releases the saga."""
        result = to_json(outcome.result, f"the outcome of step {outcome.step}")
        await self._fetch(DELIVER, saga_id, outcome.step, result, outcome.error, outcome.trace)
        return bool(await self._fetch("SELECT 1 FROM saga.sagas WHERE id = $1", saga_id))

    async def outcomes(self, claim: Claim) -> dict[str, Outcome]:
        """Read `signals`, then the outcomes. An outcome that arrives between the two reads counts as unseen."""
        (row,) = await self._fetch("SELECT signals FROM saga.sagas WHERE id = $1", claim.id)
        claim.signals = row["signals"]
        rows = await self._fetch("SELECT step, result, error, trace FROM saga.outcomes WHERE saga_id = $1", claim.id)
        return {row["step"]: Outcome(**{**row, "result": json.loads(row["result"])}) for row in rows}

    async def show(self, saga_id: str) -> SagaRecord | None:
        """Read the saga's row and its entries."""
        rows = await self._fetch(f"{SUMMARY}, input FROM saga.sagas WHERE id = $1", saga_id)
        if not rows:
            return None
        entries = tuple(_entry(row) for row in await self._fetch(ENTRIES, [saga_id]))
        return SagaRecord(**{**rows[0], "input": json.loads(rows[0]["input"])}, entries=entries)

    async def summary(self, saga_id: str) -> SagaSummary | None:
        """Read the saga's row without its entries."""
        rows = await self._fetch(f"{SUMMARY} FROM saga.sagas WHERE id = $1", saga_id)
        return SagaSummary(**rows[0]) if rows else None

    async def list(self, state: State | None, name: str | None, limit: int) -> list[SagaSummary]:
        """Read the sagas, the newest first."""
        where = "($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR name = $2)"
        statement = f"{SUMMARY} FROM saga.sagas WHERE {where} ORDER BY saga.sagas.started_at DESC LIMIT $3"
        return [SagaSummary(**row) for row in await self._fetch(statement, state, name, limit)]

    async def unfinished(self) -> dict[tuple[str, State], int]:
        """Count the unfinished sagas, with the index `sagas_unfinished`."""
        rows = await self._fetch(UNFINISHED)
        return {(row["name"], row["state"]): row["count"] for row in rows}

    @asynccontextmanager
    async def outbox(self, limit: int) -> AsyncIterator[Batch]:
        """Lock the rows of the messages until the end of the block."""
        async with self._connection() as connection, connection.transaction():
            rows = await connection.fetch(TAKE_MESSAGES, limit)
            yield (batch := Batch([_message(row) for row in rows]))
            refused = [row["sequence"] for place, row in enumerate(rows) if place in batch.refused]
            if refused:
                await connection.execute(REFUSED, refused)
            sent = [row["sequence"] for place, row in enumerate(rows) if place not in batch.refused]
            await connection.execute("DELETE FROM saga.outbox WHERE sequence = ANY($1::bigint[])", sent)


def _columns(entries: Sequence[Entry]) -> tuple[list[str], list[str], list[str]]:
    kinds = [entry.kind for entry in entries]
    return list(kinds), [entry.step for entry in entries], [to_json(entry.data, "a result") for entry in entries]


def _entry(row: asyncpg.Record) -> Entry:
    return Entry(row["kind"], row["step"], json.loads(row["data"]), row["at"], row["age"])


def _message(row: asyncpg.Record) -> Message:
    return Message(row["id"], row["type"], json.loads(row["payload"]), row["trace"])


async def _skip_reset(_: asyncpg.Connection[Any]) -> None:
    """Skip asyncpg's reset of a session, which costs a round trip. This module never changes a session."""
