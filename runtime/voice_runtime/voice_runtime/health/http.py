"""HTTP: the server answers `GET /`. Needs the extra `http`."""

from __future__ import annotations

import ssl

import httpx

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


class ServerFailedError(Exception):
    """The server answers with a status of 500 or above."""


def checker(place: Place) -> Checker:
    """A checker that accepts any status below 500, because the root of an API often answers 401 or 404.

    It uses HTTPS if the address has TLS or an egress proxy. The proxy reads the host from the TLS handshake (SNI).
    """
    address = place.address
    origin = f"{address.host}:{address.port}"
    scheme = "https" if address.uses_tls else "http"
    url = f"{scheme}://{address.via or origin}/"
    extensions = {"sni_hostname": address.host} if address.via else {}

    async def look() -> None:
        verify = ssl.create_default_context()
        async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=None) as client:  # noqa: S113  # the check has its own timeout
            response = await client.get(url, headers={"host": origin}, extensions=extensions)
        if response.is_server_error:
            raise ServerFailedError(f"{address.host} answers {response.status_code}")

    return look
