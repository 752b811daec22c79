"""gRPC under the policies of a bundle. Needs the extra `grpc`.

wire = Grpc(runtime)
async with wire.channel("rag-engine") as channel:
    answer = await RagEngineStub(channel).Context(request)
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial
from typing import Any

import grpc

from voice_runtime.assembly import Assembled
from voice_runtime.errors import UnknownCallError
from voice_runtime.grpc.channel import Channel, grace_of
from voice_runtime.grpc.connections import CHANNEL_OPTIONS, Connections, Locate, Settings, Target
from voice_runtime.grpc.server import Server
from voice_runtime.grpc.status import NeverSentError
from voice_runtime.grpc.sync_channel import SyncChannel
from voice_runtime.runtime import Runtime

__all__ = ["Channel", "Grpc", "NeverSentError", "Server", "SyncChannel", "Target"]


Interceptor = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
"""A client interceptor of gRPC's synchronous channels."""


class Grpc:
    """The gRPC side of a runtime: channels and servers. A connection opens at the first call.

    The object holds the connections, so create one object for each process.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._connections = Connections(runtime.clock.monotonic, runtime.random.uniform)

    def channel(
        self,
        name: str,
        *,
        target: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, Any]] = (),
        interceptors: Iterable[grpc.aio.ClientInterceptor] = (),
    ) -> Channel:
        """The channel to a callee. `name` is the callee's name, or the name of one call to the callee.

        `target`, in gRPC's format, replaces the address in the bundle. `credentials` come from
        `grpc.ssl_channel_credentials`; create them once, because each credentials object gets a separate connection.
        Without `credentials` a channel to a `target` is plaintext. A channel to the bundle's address uses TLS if the
        address has `tls` or is reached through an egress proxy. gRPC then verifies the callee with gRPC's
        root certificates. The variable `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` may name a file with other root certificates.

        `options` are gRPC's channel options, such as `("grpc.max_receive_message_length", 64 * 2**20)`. `interceptors`
        run inside each attempt. Channels share a connection only if options and interceptors are the same.

        Raises `UnknownCallError` if `name` is neither a gRPC call of the bundle nor the callee of one. Raises
        `ValueError` for an option that the runtime sets.
        """
        settings = Settings.beside(CHANNEL_OPTIONS, options, interceptors)
        return Channel(self.runtime, name, self._locate(name, target, credentials, settings), self._connections)

    def sync_channel(
        self,
        name: str,
        *,
        target: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        options: Iterable[tuple[str, Any]] = (),
        interceptors: Iterable[Interceptor] = (),
    ) -> SyncChannel:
        """Like `channel`, for code without an event loop."""
        settings = Settings.beside(CHANNEL_OPTIONS, options, interceptors)
        return SyncChannel(self.runtime, name, self._locate(name, target, credentials, settings), self._connections)

    def server(
        self,
        *,
        options: Iterable[tuple[str, Any]] = (),
        interceptors: Iterable[grpc.aio.ServerInterceptor] = (),
    ) -> Server:
        """A server of this service's operations. Add handlers and a port, start it, and `drain` it on SIGTERM.

        `options` are gRPC's server options. `interceptors` run after the runtime has admitted the request. Raises
        `ValueError` for an option that the runtime sets.
        """
        return Server(self.runtime, options, interceptors)

    async def close(self) -> None:
        """Close the connections of this event loop. Calls in flight get the bundle's longest overall timeout to end."""
        await self._connections.close(grace_of(self.runtime.assembled))

    def _locate(
        self, name: str, target: str | None, credentials: grpc.ChannelCredentials | None, settings: Settings
    ) -> Locate:
        locate = partial(_target, name, target, credentials, settings)
        locate(self.runtime.assembled)  # refuses an unknown name now, and not at the first call
        return locate


def _target(
    name: str,
    address: str | None,
    credentials: grpc.ChannelCredentials | None,
    settings: Settings,
    assembled: Assembled,
) -> Target:
    """The target of a channel: `address`, or else the callee's address in a bundle."""
    calls = [call for call in assembled.bundle.outbound if call.protocol == "grpc"]
    found = next((call for call in calls if name in (call.name, call.callee)), None)
    if found is None:
        known = {call.callee for call in calls} | {call.name for call in calls}
        raise UnknownCallError("gRPC callee", name, known)
    callee = found.addresses[0]
    server_name = callee.host if callee.via else None
    if address is None and callee.uses_tls:
        credentials = credentials or _public_roots()
    return Target(
        address or f"dns:///{callee.via or f'{callee.host}:{callee.port}'}", credentials, server_name, settings
    )


@cache
def _public_roots() -> grpc.ChannelCredentials:
    """TLS with gRPC's root certificates. Cached, because each credentials object gets a separate connection."""
    return grpc.ssl_channel_credentials()
