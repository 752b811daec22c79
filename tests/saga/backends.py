from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from temporalio.client import Client
from voice_saga import Definition, JournalEngine, SqliteJournal
from voice_saga.journal import Journal
from voice_saga.postgresql import PostgresqlJournal, migrate
from voice_saga.temporal import TemporalEngine

from tests import redis_servers
from tests.postgresql_servers import Postgresql, running_postgresql
from tests.saga.temporal_server import running_temporal

AnyEngine = JournalEngine | TemporalEngine
Backend = Callable[..., AbstractAsyncContextManager[Any]]
"""Opens an engine for definitions and options. Within one test, every engine uses the same store."""
JOURNALS = ("sqlite", "postgresql")
ENGINES = (*JOURNALS, "temporal")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    # Without fsync, a crash of the machine loses data, but a killed process does not. The tests only kill processes.
    with running_postgresql("fsync=off") as server:
        asyncio.run(_migrate(server.dsn("postgres")))
        yield server


async def _migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await migrate(connection)
    await connection.close()


@pytest.fixture
def database(postgresql: Postgresql) -> str:
    """Empty saga tables. Connections of earlier tests are closed."""
    postgresql.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND pid <> pg_backend_pid()"
    )
    postgresql.psql(
        "TRUNCATE saga.sagas, saga.entries, saga.outcomes, saga.outbox, saga.inbox, saga.barriers; "
        "DROP TABLE IF EXISTS effects, deliveries"
    )
    return postgresql.dsn("postgres")


@pytest.fixture(scope="session")
def temporal() -> Iterator[str]:
    with running_temporal() as address:
        yield address


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_servers.single(tmp_path_factory.mktemp("redis")) as server:
        yield server.port


@pytest.fixture(params=JOURNALS)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    if request.param == "postgresql":
        return PostgresqlJournal(request.getfixturevalue("database"))
    return SqliteJournal(tmp_path / "sagas.db")


@pytest.fixture(params=ENGINES)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "temporal":
        return _on_temporal(request.getfixturevalue("temporal"), uuid.uuid4().hex)
    if request.param == "postgresql":
        dsn = request.getfixturevalue("database")
        return _on_journal(lambda: PostgresqlJournal(dsn))
    return _on_journal(lambda: SqliteJournal(tmp_path / "sagas.db"))


def _on_journal(journal: Callable[[], Any]) -> Backend:
    @asynccontextmanager
    async def engine(definitions: Sequence[Definition] = (), **options: Any) -> AsyncIterator[JournalEngine]:
        quick: dict[str, Any] = {"poll_interval": 0.05, "grace": 0.2}
        async with JournalEngine(journal(), definitions, **(quick | options)) as running:
            yield running

    return engine


def _on_temporal(address: str, queue: str) -> Backend:
    @asynccontextmanager
    async def engine(definitions: Sequence[Definition] = (), **options: Any) -> AsyncIterator[TemporalEngine]:
        client = await Client.connect(address)
        async with TemporalEngine(client, definitions, task_queue=queue, **options) as running:
            yield running

    return engine
