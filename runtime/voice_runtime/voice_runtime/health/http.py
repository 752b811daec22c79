"""HTTP: a GET of the root that the server itself does not fail. Needs the extra `http`."""

from __future__ import annotations

import ssl

import httpx

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


class ServerFailedError(Exception):
    """The server answers with a status of 500 or above."""


def checker(place: Place) -> Checker:
    """Any answer below 500 shows a server at work: the root of an API is often 401 or 404.

    Outside of the cluster it is HTTPS: the egress proxy passes it on by the host's name.
    """
    address = place.address
    origin = f"{address.host}:{address.port}"
    scheme = "https" if address.via or address.tls else "http"
    url = f"{scheme}://{address.via or origin}/"
    extensions = {"sni_hostname": address.host} if address.via else {}

    async def look() -> None:
        verify = ssl.create_default_context()
        async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=None) as client:  # noqa: S113  # the check's own
            response = await client.get(url, headers={"host": origin}, extensions=extensions)
        if response.is_server_error:
            raise ServerFailedError(f"{address.host} answers {response.status_code}")

    return look
