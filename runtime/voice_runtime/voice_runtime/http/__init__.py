"""HTTP under the policies of a bundle. Needs the extra `http`.

async with Http(runtime).client("elasticsearch.search") as client:
    found = await client.post("/documents/_search", json=query)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from voice_runtime.asgi import Application, Scope
from voice_runtime.http.connections import LIMITS, PooledTransport
from voice_runtime.http.middleware import Middleware, last_segment
from voice_runtime.http.transport import AsyncTransport, Transport
from voice_runtime.runtime import Runtime

__all__ = ["AsyncTransport", "Http", "Middleware", "Transport", "last_segment"]


class Http:
    """The HTTP side of a runtime: clients, transports and the middleware of a server."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def middleware(self, app: Application, operation: Callable[[Scope], str] = last_segment) -> Middleware:
        """Apply the inbound policies to an ASGI application. `operation` returns the operation of a request."""
        return Middleware(app, self._runtime, operation)

    def transport(self, name: str, inner: httpx.AsyncBaseTransport | None = None) -> AsyncTransport:
        """Apply a call's policies to an httpx transport. Raises `UnknownCallError`."""
        return AsyncTransport(self._runtime, name, inner or PooledTransport())

    def sync_transport(self, name: str, inner: httpx.BaseTransport | None = None) -> Transport:
        """Like `transport`, for code without an event loop."""
        return Transport(self._runtime, name, inner or httpx.HTTPTransport(limits=LIMITS))

    def client(self, name: str, **settings: Any) -> httpx.AsyncClient:
        """A client for a call, with the call's address as base URL.

        If the call has several addresses, the URL of each request must name the host. The client has no
        timeouts except the timeouts of the call's policies.
        """
        return httpx.AsyncClient(**{"transport": self.transport(name)} | self._settings(name) | settings)

    def sync_client(self, name: str, **settings: Any) -> httpx.Client:
        """Like `client`, for code without an event loop."""
        return httpx.Client(**{"transport": self.sync_transport(name)} | self._settings(name) | settings)

    def _settings(self, name: str) -> dict[str, Any]:
        assembled = self._runtime.assembled
        full_name = assembled.call(name).name
        call = next(call for call in assembled.bundle.outbound if call.name == full_name)
        urls = [
            f"{'https' if address.uses_tls or call.protocol == 'https' else 'http'}://{address.host}:{address.port}"
            for address in call.addresses
        ]
        return {"base_url": urls[0] if len(urls) == 1 else "", "timeout": None}
