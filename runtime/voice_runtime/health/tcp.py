"""TCP: a connection is accepted, through the egress proxy where the host is outside the cluster."""

from __future__ import annotations

import asyncio
from contextlib import closing

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


class ProxyRefusedError(Exception):
    """The egress proxy did not connect."""


def checker(place: Place) -> Checker:
    """Raises `OSError` if nobody listens, `ProxyRefusedError` if the proxy says so."""
    address = place.address
    host, port = address.via.rsplit(":", 1) if address.via else (address.host, address.port)

    async def look() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        with closing(writer):
            if address.via:
                writer.write(f"CONNECT {address.host}:{address.port} HTTP/1.1\r\nHost: {address.host}\r\n\r\n".encode())
                status = (await reader.readline()).split(b" ", 2)[1:2]
                if status != [b"200"]:
                    raise ProxyRefusedError(f"{address.via} answers {status}")

    return look
