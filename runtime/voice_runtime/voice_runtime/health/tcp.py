"""TCP: the target accepts a connection.

If the address uses TLS, the target must also show a valid certificate for the host name.
"""

from __future__ import annotations

import asyncio
import ssl

from voice_runtime.health.check import Checker
from voice_runtime.health.place import Place


def checker(place: Place) -> Checker:
    """A checker that opens a connection.

    `OSError` means that nobody listens, or that the certificate is not valid for the host.
    """
    address = place.address
    host, _, port = (address.via or f"{address.host}:{address.port}").rpartition(":")

    async def look() -> None:
        context = ssl.create_default_context() if address.uses_tls else None
        name = address.host if address.uses_tls else None
        _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name)
        writer.transport.abort()

    return look
