"""A channel for generated stubs. Each method runs under the policies of its call in the bundle."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc
from typing_extensions import override

from voice_runtime.assembly import Assembled
from voice_runtime.grpc.attempts import WRITTEN, Attempts
from voice_runtime.grpc.call import StreamCall, UnaryCall
from voice_runtime.grpc.connections import Connection, Connections, Locate
from voice_runtime.grpc.methods import Method, Resolved
from voice_runtime.runtime import Runtime


class Channel(grpc.aio.Channel):
    """The channel for generated asyncio stubs. It belongs to the event loop in which it was created."""

    def __init__(self, runtime: Runtime, name: str, locate: Locate, connections: Connections) -> None:
        self.runtime = runtime
        self.name = name
        self._locate = locate
        self._connections = connections
        self.loop = asyncio.get_running_loop()
        self._now = runtime.clock.monotonic
        self._connection: Connection | None = None
        self._assembled: Assembled | None = None
        self._closed = False

    def connection(self, assembled: Assembled) -> Connection:
        """The connection for a new call with the policies of `assembled`.

        Raises `RuntimeError` on another event loop or after `close`, and `UnknownCallError` if the bundle does
        not name the callee.
        """
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                f"the channel to {self.name} belongs to another event loop: create a channel in each event loop"
            )
        if self._closed:
            raise RuntimeError(f"the channel to {self.name} is closed: create a new channel")
        connection = self._connection
        if connection is None or assembled is not self._assembled or self._now() >= connection.expires:
            self._connection = connection = self._connections.of(self._locate(assembled), grace_of(assembled))
            self._assembled = assembled
        return connection

    @override
    def unary_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return UnaryRequest(self, "unary_unary", method, serializers, settings)

    @override
    def unary_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return UnaryRequest(self, "unary_stream", method, serializers, settings)

    @override
    def stream_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return StreamRequest(self, "stream_unary", method, serializers, settings)

    @override
    def stream_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return StreamRequest(self, "stream_stream", method, serializers, settings)

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002  # calls in flight end by themselves
        """Refuse further calls. The connection stays open, because other channels may share it."""
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT002  # the signature of grpc.aio
        """The state of the current connection."""
        state: grpc.ChannelConnectivity = self._present().get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the current connection is in a state other than `last_observed_state`."""
        await self._present().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the connection to the callee is ready."""
        await self._present().channel_ready()

    def _present(self) -> Any:
        return self.connection(self.runtime.assembled).channel


class _Method(Method):
    def __init__(self, channel: Channel, kind: str, path: str, *serializers: Any) -> None:
        super().__init__(channel.name, kind, path, *serializers)
        self._channel = channel
        self._is_stream = kind.endswith("stream")

    def current(self) -> Resolved:
        """The method with the policies of the current bundle, on the current connection."""
        assembled = self._channel.runtime.assembled
        return self.resolved(assembled, self._channel.connection(assembled))

    def _call(self, request: Any, timeout: float | None, metadata: Any, options: dict[str, Any]) -> Any:
        channel = self._channel
        if self.is_infrastructure:
            invoke = self.invoke_on(channel.connection(channel.runtime.assembled))
            return invoke(request, timeout=timeout, metadata=metadata, **options)
        attempts = Attempts(self.current(), timeout, metadata, options)
        if self._is_stream:
            return StreamCall(channel.loop, attempts, request, self.current)
        return UnaryCall(channel.loop, attempts, request)


class UnaryRequest(_Method):
    """A method that takes one request."""

    def __call__(self, request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call the method. Raises `UnknownCallError` if the bundle declares no call for it."""
        return self._call(request, timeout, metadata, options)


class StreamRequest(_Method):
    """A method that takes many requests, from an iterator or by `write`. Its calls are never retried."""

    def __call__(
        self, request_iterator: Any = None, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> Any:
        """Call the method. Raises `UnknownCallError` if the bundle declares no call for it."""
        if request_iterator is None:
            requests = WRITTEN
        else:
            requests = aiter(request_iterator) if hasattr(request_iterator, "__aiter__") else iter(request_iterator)
        return self._call(requests, timeout, metadata, options)


def grace_of(assembled: Assembled) -> float:
    """The longest time in seconds that a call in flight may still take."""
    return max((call.timeout.overall.seconds for call in assembled.bundle.outbound), default=0.0)
