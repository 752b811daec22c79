"""HTTP: a GET of the root that the server itself does not fail. Needs the extra `http`."""

from __future__ import annotations

import httpx

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


class ServerFailedError(Exception):
    """The server answers with a status of 500 or above."""


def checker(place: Place) -> Checker:
    """Any answer below 500 shows a server at work: the root of an API is often 401 or 404."""
    address = place.address
    proxy = f"http://{address.via}" if address.via else None

    async def look() -> None:
        async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=None) as client:  # noqa: S113  # the check's own
            response = await client.get(f"http://{address.host}:{address.port}/")
        if response.is_server_error:
            raise ServerFailedError(f"{address.host} answers {response.status_code}")

    return look
