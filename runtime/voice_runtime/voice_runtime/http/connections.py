"""The pools of connections of httpx clients."""

from __future__ import annotations

import httpx

from voice_runtime.shared_store import PerLoop

__all__ = ["PooledTransport"]

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Connection limits of the transports that the runtime creates. The call's bulkhead bounds the open connections.
Without a bulkhead nothing bounds them. 20 idle connections are httpx's default."""


class PooledTransport(httpx.AsyncBaseTransport):
    """Like `httpx.AsyncHTTPTransport`, with a pool for each event loop.

    A connection works only on the event loop that opened it.
    """

    def __init__(self) -> None:
        self._pools = PerLoop(lambda: httpx.AsyncHTTPTransport(limits=LIMITS))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request over a connection of the running event loop. Raises httpx's errors."""
        return await self._pools.get().handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        if (pool := self._pools.pop()) is not None:
            await pool.aclose()
