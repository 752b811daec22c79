"""PostgreSQL: a new session that answers a query. Needs the extra `postgresql`."""

from __future__ import annotations

import ssl

import asyncpg

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


def checker(place: Place) -> Checker:
    """A checker that connects as the service does: at the address of the service's call, to the service's database."""

    async def look() -> None:
        connection = await asyncpg.connect(
            host=place.address.host,
            port=place.address.port,
            user=place.service,
            password=place.password(),
            database=place.connection.database if place.connection else place.service,
            ssl=ssl.create_default_context() if place.address.tls else None,
            statement_cache_size=0,  # through a pooler a query may reach a session without our prepared statement
        )
        try:
            await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    return look
