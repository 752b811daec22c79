"""The journal in an SQLite file, for one worker process. It needs no server.

`due` of a saga is a time of the monotonic clock, so a change of the wall clock changes no lease. The monotonic clock
restarts with the machine. So a worker that opens the file makes all unfinished sagas due, except parked ones. Then it
claims and continues them like all due sagas. `due` of a refused message is a time of the wall clock.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

from voice_saga.context import Message, to_json
from voice_saga.errors import JournalUnavailableError, LeaseLostError
from voice_saga.journal import Batch, Claim, Outcome
from voice_saga.migrations import scripts
from voice_saga.progress import ENDED, Entry, State
from voice_saga.record import SagaRecord, SagaSummary

T = TypeVar("T")
BUSY_SECONDS = 10
"""Seconds that a write waits for the write of another process, for example of the command `voice-saga`."""
UNAVAILABLE = (sqlite3.OperationalError, sqlite3.DatabaseError)
"""The exact types of errors of the file itself. `DatabaseError` means that the file is no database. Its other
subclasses, such as `IntegrityError`, are errors of a statement."""
SUMMARY = "id, name, version, state, reason, started_at, updated_at"
RENEW = "UPDATE sagas SET due = ? WHERE id = ? AND epoch = ? AND owner NOTNULL AND due > ?"
RELEASE = "UPDATE sagas SET owner = NULL, due = 0, claims = max(claims - 1, 0) WHERE owner = ?"
TAKE_OVER = "UPDATE sagas SET owner = NULL, due = 0 WHERE due < 9e999"
START = """
INSERT OR IGNORE INTO sagas (id, name, version, fingerprint, input, trace, state, owner, epoch, due, entries, claims,
                             started_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
TAKE = """
UPDATE sagas SET owner = ?1, due = ?2, epoch = epoch + 1, claims = claims + 1 WHERE id = ?4
RETURNING id, name, version, fingerprint, input, trace, epoch, claims, signals, ?3 - started_at AS age"""
ENTRIES = "SELECT kind, step, data, at FROM entries WHERE saga_id = ? ORDER BY sequence"
UPDATE = """
UPDATE sagas SET state = ?, reason = ?, entries = ?, claims = 0, updated_at = ?, owner = ?, due = ? WHERE id = ?"""
SIGNAL = """
UPDATE sagas SET signals = signals + 1, due = CASE WHEN state = 'waiting' AND owner ISNULL THEN ?1 ELSE due END
WHERE id = ?2"""
TAKE_MESSAGES = """
SELECT outbox.* FROM outbox LEFT JOIN refused USING (sequence)
WHERE due ISNULL OR due NOT BETWEEN ?1 AND ?1 + 64 ORDER BY sequence LIMIT ?2"""
"""A message that the transport refused waits at most 64 s. If `due` is more than 64 s ahead, the clock was set back.
Then the message is due now."""
REFUSED = """
INSERT INTO refused VALUES (?1, 1, ?2 + 1)
ON CONFLICT DO UPDATE SET refusals = refusals + 1, due = ?2 + (1 << min(refusals, 6))"""


class SqliteJournal:
    """The journal in the file `path`.

    One process at a time runs the sagas of the file; other processes may show and change them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._thread = _thread()
        self._lock: TextIOWrapper | None = None
        self._connection: sqlite3.Connection | None = None
        self._pending: deque[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = deque()

    async def open(self, *, worker: bool) -> None:
        """Open the file, and create missing tables.

        A worker also locks `PATH.lock`, and takes over all unfinished sagas except parked ones.
        """
        if worker:
            self._lock = self._only_worker()
        try:
            self._connection = await self._on_thread(self._connect)
            if worker:
                await self._write(lambda db: db.execute(TAKE_OVER))
        except BaseException:
            await self.close()  # releases the lock for the next attempt
            raise

    def _only_worker(self) -> TextIOWrapper:
        file = Path(f"{self.path}.lock").open("w", encoding="utf-8")  # noqa: SIM115  # stays open, and locked, until the worker ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise JournalUnavailableError(
                f"{self.path}: another process runs the sagas of this file; "
                "stop that process, or use PostgreSQL for several workers"
            ) from None
        return file

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_SECONDS, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a committed write survives a power cut
        for script in scripts("sqlite").values():
            connection.executescript(script)
        return connection

    async def close(self) -> None:
        """Close the file. It can be opened again."""
        if self._connection is not None:
            await self._on_thread(self._disconnect)
        self._thread.shutdown()
        if self._lock is not None:
            self._lock.close()
        self._thread, self._lock = _thread(), None

    def _disconnect(self) -> None:
        """Runs on the journal's thread, so that earlier writes are committed and later ones refused."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Run `work` on the journal's thread, so that the disk does not block the event loop."""
        with self._reached():
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in UNAVAILABLE:
                raise
            raise JournalUnavailableError(f"{self.path}: {error}") from error

    async def _read(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        return await self._on_thread(lambda: self._opened().execute(statement, values).fetchall())

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one write. Writes that arrive during a commit share the next commit.

        An error of one write fails no other write. A failed commit fails all writes that share it.
        """
        self._opened()
        done: Future[T] = Future()
        self._pending.append((work, done))
        self._thread.submit(self._commit_pending)
        with self._reached():
            return await asyncio.wrap_future(done)

    def _commit_pending(self) -> None:
        batch = [self._pending.popleft() for _ in range(len(self._pending))]
        batch = [(work, done) for work, done in batch if done.set_running_or_notify_cancel()]
        if not batch:
            return
        db = None
        try:
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            outcomes = [_apart(db, work) for work, _ in batch]
            db.execute("COMMIT")
        except (sqlite3.Error, JournalUnavailableError) as error:
            if db is not None and db.in_transaction:
                db.execute("ROLLBACK")
            outcomes = [(None, error)] * len(batch)
        for (_, done), (result, refusal) in zip(batch, outcomes, strict=True):
            if refusal is None:
                done.set_result(result)
            else:
                done.set_exception(refusal)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise JournalUnavailableError(f"{self.path} is not open: use the engine in `async with`, or call `open`")
        return self._connection

    async def start(self, claim: Claim, owner: str | None, lease: float) -> bool:
        """Write the saga and its first entries in one transaction."""
        now, due = time.time(), time.monotonic() + (lease if owner else 0.0)
        row = (
            claim.id, claim.name, claim.version, claim.fingerprint, to_json(claim.input, "the input"), claim.trace,
            "running", owner, 1, due, len(claim.entries), 1 if owner else 0, now, now,
        )  # fmt: skip

        def write(db: sqlite3.Connection) -> bool:
            if not db.execute(START, row).rowcount:
                return False
            _write_entries(db, claim, 0, claim.entries, now)
            return True

        return await self._write(write)

    async def claim(self, owner: str, limit: int, lease: float) -> list[Claim]:
        """Take the due sagas in the order of `due`."""
        return await self._take(owner, lease, "due <= ? ORDER BY due LIMIT ?", time.monotonic(), limit)

    async def seize(self, saga_id: str, owner: str, lease: float) -> Claim | None:
        """Take the saga from its holder. The saga's new epoch makes the journal refuse the former holder's writes."""
        claims = await self._take(owner, lease, "id = ?", saga_id)
        return claims[0] if claims else None

    async def _take(self, owner: str, lease: float, which: str, *values: Any) -> list[Claim]:
        def write(db: sqlite3.Connection) -> list[Claim]:
            now, due = time.time(), time.monotonic() + lease
            ids = [row["id"] for row in db.execute(f"SELECT id FROM sagas WHERE {which}", values)]  # noqa: S608  # the parts are constants of this module
            claims = []
            for saga_id in ids:
                (row,) = db.execute(TAKE, (owner, due, now, saga_id)).fetchall()
                entries = [_entry(entry, now) for entry in db.execute(ENTRIES, (saga_id,))]
                claims.append(Claim(**{**dict(row), "input": json.loads(row["input"]), "entries": entries}))
            return claims

        return await self._write(write)

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
        """Write entries, state and messages in one transaction."""
        sent = [(m.id, m.type, to_json(m.payload, f"message {m.type}"), m.trace) for m in messages]
        seen = claim.signals

        def write(db: sqlite3.Connection) -> None:
            now, instant = time.time(), time.monotonic()
            held = (claim.id, claim.epoch, instant)
            row = db.execute("SELECT * FROM sagas WHERE id = ? AND epoch = ? AND owner NOTNULL AND due > ?", held)
            if (saga := row.fetchone()) is None:
                raise LeaseLostError(f"saga {claim.id}: the lease of epoch {claim.epoch} has expired or was taken over")
            _write_entries(db, claim, saga["entries"], entries, now)
            db.executemany("INSERT INTO outbox (id, type, payload, trace) VALUES (?, ?, ?, ?)", sent)
            due = saga["due"] if release is None else instant + (release if saga["signals"] <= seen else 0)
            owner = saga["owner"] if release is None else None
            updated = now if entries else saga["updated_at"]
            db.execute(UPDATE, (state, reason, saga["entries"] + len(entries), updated, owner, due, claim.id))

        await self._write(write)

    async def renew(self, claims: Collection[Claim], lease: float) -> set[str]:
        """Extend all leases in one transaction."""
        now = time.monotonic()
        held = [(claim.id, claim.epoch) for claim in claims]
        return await self._write(
            lambda db: {
                saga_id for saga_id, epoch in held if db.execute(RENEW, (now + lease, saga_id, epoch, now)).rowcount
            }
        )

    async def release(self, owner: str) -> None:
        """Release all sagas of the owner in one transaction."""
        await self._write(lambda db: db.execute(RELEASE, (owner,)))

    async def deliver(self, saga_id: str, outcome: Outcome) -> bool:
        """Store the outcome and increment `signals`. So a worker notices the outcome before it releases the saga."""
        result = to_json(outcome.result, f"the outcome of step {outcome.step}")

        def write(db: sqlite3.Connection) -> bool:
            if db.execute("SELECT 1 FROM sagas WHERE id = ?", (saga_id,)).fetchone() is None:
                return False
            values = (saga_id, outcome.step, result, outcome.error, outcome.trace)
            if db.execute("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?, ?, ?)", values).rowcount:
                db.execute(SIGNAL, (time.monotonic(), saga_id))
            return True

        return await self._write(write)

    async def outcomes(self, claim: Claim) -> dict[str, Outcome]:
        """Read `signals`, then the outcomes. An outcome that arrives between the two reads counts as unseen."""
        (row,) = await self._read("SELECT signals FROM sagas WHERE id = ?", claim.id)
        claim.signals = row["signals"]
        rows = await self._read("SELECT step, result, error, trace FROM outcomes WHERE saga_id = ?", claim.id)
        return {row["step"]: Outcome(**{**dict(row), "result": json.loads(row["result"])}) for row in rows}

    async def show(self, saga_id: str) -> SagaRecord | None:
        """Read the saga's row and its entries."""
        rows = await self._read(f"SELECT {SUMMARY}, input FROM sagas WHERE id = ?", saga_id)  # noqa: S608  # column names
        if not rows:
            return None
        now = time.time()
        entries = tuple(_entry(row, now) for row in await self._read(ENTRIES, saga_id))
        return SagaRecord(**{**dict(rows[0]), "input": json.loads(rows[0]["input"])}, entries=entries)

    async def summary(self, saga_id: str) -> SagaSummary | None:
        """Read the saga's row without its entries."""
        rows = await self._read(f"SELECT {SUMMARY} FROM sagas WHERE id = ?", saga_id)  # noqa: S608  # column names
        return SagaSummary(**dict(rows[0])) if rows else None

    async def list(self, state: State | None, name: str | None, limit: int) -> list[SagaSummary]:
        """Read the sagas, the newest first."""
        where = "(?1 ISNULL OR state = ?1) AND (?2 ISNULL OR name = ?2)"
        statement = f"SELECT {SUMMARY} FROM sagas WHERE {where} ORDER BY started_at DESC LIMIT ?3"  # noqa: S608  # the parts are constants of this module
        rows = await self._read(statement, state, name, limit)
        return [SagaSummary(**dict(row)) for row in rows]

    async def unfinished(self) -> dict[tuple[str, State], int]:
        """Count the unfinished sagas with one query."""
        rows = await self._read("SELECT name, state, count(*) AS count FROM sagas GROUP BY name, state")
        return {(row["name"], row["state"]): row["count"] for row in rows if row["state"] not in ENDED}

    @asynccontextmanager
    async def outbox(self, limit: int) -> AsyncIterator[Batch]:
        """Read due messages without a lock, because only one process sends them."""
        rows = await self._read(TAKE_MESSAGES, time.time(), limit)
        batch = Batch([Message(row["id"], row["type"], json.loads(row["payload"]), row["trace"]) for row in rows])
        yield batch
        refused = [(row["sequence"], time.time()) for place, row in enumerate(rows) if place in batch.refused]
        sent = [(row["sequence"],) for place, row in enumerate(rows) if place not in batch.refused]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(REFUSED, refused)
            for table in ("outbox", "refused"):
                db.executemany(f"DELETE FROM {table} WHERE sequence = ?", sent)  # noqa: S608  # the parts are constants of this module

        if rows:
            await self._write(write)


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="saga-journal")


def _apart(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], Any]) -> tuple[Any, Exception | None]:
    """Run one write in a savepoint, so that its error undoes no other write of the transaction."""
    db.execute("SAVEPOINT write")
    try:
        result = work(db)
    except Exception as error:  # noqa: BLE001  # raised where the write was requested
        db.execute("ROLLBACK TO write")
        return None, error
    db.execute("RELEASE write")
    return result, None


def _write_entries(db: sqlite3.Connection, claim: Claim, written: int, entries: Sequence[Entry], now: float) -> None:
    rows = [
        (claim.id, number, entry.kind, entry.step, to_json(entry.data, "a result"), claim.epoch, now)
        for number, entry in enumerate(entries, written + 1)
    ]
    db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _entry(row: sqlite3.Row, now: float) -> Entry:
    return Entry(row["kind"], row["step"], json.loads(row["data"]), row["at"], now - row["at"])
