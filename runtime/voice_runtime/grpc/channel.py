"""A channel whose stubs make the calls of the bundle: each method under the policies of the call that it is."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from voice_runtime.assembly import Assembled
from voice_runtime.grpc.attempts import WRITTEN, Attempts, Resolved
from voice_runtime.grpc.call import StreamCall, UnaryCall
from voice_runtime.grpc.connections import Connection, Connections, Target
from voice_runtime.grpc.methods import INFRASTRUCTURE, outbound_of

if TYPE_CHECKING:
    from voice_runtime.runtime import Runtime


class Channel(grpc.aio.Channel):
    """What generated stubs are made of. Belongs to the event loop that it was made in."""

    def __init__(self, runtime: Runtime, name: str, target: Target, connections: Connections) -> None:
        self.runtime = runtime
        self.name = name
        self._target = target
        self._connections = connections
        self.loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._closed = False

    def connection(self) -> Connection:
        """The connection for another call. Raises `RuntimeError` on another event loop, or once it is closed."""
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(f"the channel to {self.name} belongs to another event loop: make one in each loop")
        if self._closed:
            raise RuntimeError(f"the channel to {self.name} is closed")
        if self._connection is None or self.runtime.clock.monotonic() >= self._connection.expires:
            self._connection = self._connections.of(self._target, grace_of(self.runtime.assembled))
        return self._connection

    def unary_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        """A method with one request and one answer."""
        return UnaryRequest(self, "unary_unary", method, serializers, settings)

    def unary_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        """A method with one request and many answers."""
        return UnaryRequest(self, "unary_stream", method, serializers, settings)

    def stream_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        """A method with many requests and one answer."""
        return StreamRequest(self, "stream_unary", method, serializers, settings)

    def stream_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        """A method with many requests and many answers."""
        return StreamRequest(self, "stream_stream", method, serializers, settings)

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002  # calls in flight end by themselves
        """Take no further call. The connection stays for others; `runtime.grpc.close()` closes it."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT002  # as grpc.aio has it
        """The state of the present connection."""
        state: grpc.ChannelConnectivity = self.connection().channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the present connection is in another state."""
        await self.connection().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the callee can be reached."""
        await self.connection().channel.channel_ready()


class _Method:
    """One method of a stub. What it resolved is kept until the bundle or the connection is another."""

    def __init__(
        self, channel: Channel, kind: str, path: str, serializers: tuple[Any, ...], settings: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._kind = kind
        self._path = path
        self._is_infrastructure = path.startswith(INFRASTRUCTURE)
        self._settings = settings | dict(
            zip(("request_serializer", "response_deserializer"), serializers, strict=False)
        )
        self._make = UnaryCall if kind.endswith("unary") else StreamCall
        self._assembled: Assembled | None = None
        self._connection: Connection | None = None
        self._resolved: Resolved

    def _call(self, request: Any, timeout: float | None, metadata: Any, options: dict[str, Any]) -> Any:
        connection = self._channel.connection()
        if self._is_infrastructure:
            return self._invoke_on(connection)(request, timeout=timeout, metadata=metadata, **options)
        assembled = self._channel.runtime.assembled
        if assembled is not self._assembled or connection is not self._connection:
            self._resolved = self._resolve(assembled, connection)
            self._assembled, self._connection = assembled, connection
        attempts = Attempts(self._resolved, timeout, metadata, options)
        return self._make(self._channel.loop, attempts, request)

    def _resolve(self, assembled: Assembled, connection: Connection) -> Resolved:
        outbound = outbound_of(assembled, self._channel.name, self._path)
        addresses = next(call.addresses for call in assembled.bundle.outbound if call.name == outbound.name)
        service, _, method = self._path[1:].partition("/")
        return Resolved(
            path=self._path,
            outbound=outbound,
            enter=outbound.entry(),
            is_internal=all(address.via is None for address in addresses),
            channel=connection.channel,
            invoke=self._invoke_on(connection),
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "voice.call": outbound.name,
            },
        )

    def _invoke_on(self, connection: Connection) -> Any:
        return getattr(connection.channel, self._kind)(self._path, **self._settings)


class UnaryRequest(_Method):
    """A method that takes one request."""

    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call it. Raises `UnknownCallError` for a method that is no call of the bundle."""
        return self._call(request, timeout, metadata, options)


class StreamRequest(_Method):
    """A method that takes many requests, from an iterator or by `write`. It is never sent twice."""

    def __call__(
        self, request_iterator: Any = None, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Any:
        """Call it. Raises `UnknownCallError` for a method that is no call of the bundle."""
        if request_iterator is None:
            requests = WRITTEN
        else:
            requests = aiter(request_iterator) if hasattr(request_iterator, "__aiter__") else iter(request_iterator)
        return self._call(requests, timeout, metadata, options)


def grace_of(assembled: Assembled) -> float:
    """Seconds in which every call in flight has ended."""
    return max((call.timeout.overall.seconds for call in assembled.bundle.outbound), default=0.0)
