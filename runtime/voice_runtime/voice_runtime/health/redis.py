"""Redis and Valkey: the server answers PING over a new connection. Needs the extra `redis`."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


def checker(place: Place) -> Checker:
    """A checker that logs in as the service's own user, if there is a password."""

    async def look() -> None:
        password = place.password()
        address, user = place.address, place.service if password else None
        client = Redis(
            host=address.host,
            port=address.port,
            username=user,
            password=password or None,
            ssl=bool(address.tls),
            retry=Retry(NoBackoff(), 0),  # the next probe is the next attempt
        )
        async with client:
            await client.ping()

    return look
