"""Channels for code without an event loop.

An attempt with a time limit runs on a worker thread. gRPC's deadline ends the RPC, and frees the thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, Self

import grpc
from typing_extensions import override

from voice_runtime.assembly import Assembled
from voice_runtime.clock import NEVER
from voice_runtime.grpc.attempts import Attempts
from voice_runtime.grpc.call_state import Ended, Made, State
from voice_runtime.grpc.connections import Connection, Connections, Locate, Target
from voice_runtime.grpc.methods import Method
from voice_runtime.grpc.status import details_of, status_of
from voice_runtime.runtime import Runtime
from voice_runtime.timeout import current_scope


class SyncChannel(grpc.Channel):
    """The channel for generated blocking stubs. Any thread may use it. After a fork it opens a new connection."""

    def __init__(self, runtime: Runtime, name: str, locate: Locate, connections: Connections) -> None:
        self.runtime = runtime
        self.name = name
        self._locate = locate
        self._located: tuple[Assembled, Target] | None = None
        self._connections = connections

    def connection(self, assembled: Assembled) -> Connection:
        """The connection to the callee's address in a bundle. Raises `UnknownCallError` for an unknown callee."""
        located = self._located
        if located is None or located[0] is not assembled:
            self._located = located = assembled, self._locate(assembled)
        return self._connections.of_process(located[1])

    def _present(self) -> Any:
        return self.connection(self.runtime.assembled).channel

    @override
    def unary_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return OneAnswer(self, "unary_unary", method, serializers, settings)

    @override
    def unary_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return ManyAnswers(self, "unary_stream", method, serializers, settings)

    @override
    def stream_unary(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return OneAnswer(self, "stream_unary", method, serializers, settings)

    @override
    def stream_stream(self, method: str, *serializers: Any, **settings: Any) -> Any:
        return ManyAnswers(self, "stream_stream", method, serializers, settings)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT002  # the signature of grpc
        """Report the states of the current connection to a callback."""
        self._present().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Stop the reports to a callback."""
        self._present().unsubscribe(callback)

    @override
    def close(self) -> None:
        """Do nothing: other channels may share the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Method(Method):
    def __init__(self, channel: SyncChannel, kind: str, path: str, *serializers: Any) -> None:
        super().__init__(channel.name, kind, path, *serializers)
        self._channel = channel
        self._streams_requests = kind.startswith("stream")

    def _attempts(self, request: Any, timeout: float | None, metadata: Any, options: Any) -> tuple[Attempts, Any]:
        assembled = self._channel.runtime.assembled
        method = self.resolved(assembled, self._channel.connection(assembled))
        attempts = Attempts(method, timeout, metadata, options)
        return attempts, iter(request) if self._streams_requests else request

    def _bare(self) -> Any:
        """The method without policies."""
        return self.invoke_on(self._channel.connection(self._channel.runtime.assembled))


class OneAnswer(_Method):
    """A method with one answer."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call the method. Raises `UnknownCallError` if the bundle declares no call for it."""
        return self.with_call(request, timeout, metadata, **options)[0]

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """The answer, and gRPC's call object of the successful attempt. The object is `None` if a fallback answered."""
        if self.is_infrastructure:
            bare: tuple[Any, Any] = self._bare()(request, timeout, metadata, **options)
            return bare
        attempts, request = self._attempts(request, timeout, metadata, options)
        error: BaseException | None = None
        attempts.begin()
        attempts.enter()
        try:
            return attempts.method.outbound.enter_sync(_answer, attempts, request), attempts.state.rpc
        except BaseException as raised:
            error = raised
            raise
        finally:
            attempts.end(error)

    @override
    def invoke_on(self, connection: Connection) -> Any:
        """The method on a connection, without policies. It returns the answer and gRPC's call object."""
        return super().invoke_on(connection).with_call

    def future(self, *_: Any, **__: Any) -> Any:
        """Not supported: use a thread for each call."""
        raise NotImplementedError(
            "a stub of this channel has no `future`: use `Grpc.channel`, or a thread for each call"
        )


class ManyAnswers(_Method):
    """A method with many answers."""

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call the method. Raises `UnknownCallError` if the bundle declares no call for it."""
        if self.is_infrastructure:
            return self._bare()(request, timeout, metadata, **options)
        attempts, request = self._attempts(request, timeout, metadata, options)
        return SyncStream(attempts, request)


class SyncStream:
    """The answers of a call.

    The call begins at the first iteration, or when its status or metadata are read. The call ends when
    the iteration ends, or at `cancel` or `close`.
    """

    _first: Future[Any] | None = None
    """The first message, or the error in its place. Fetched early if the caller reads status or metadata first."""

    def __init__(self, attempts: Attempts, request: Any) -> None:
        self._attempts = attempts
        self._messages = _messages(attempts, request)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first.result()
        return next(self._messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc(), name)

    def initial_metadata(self) -> Any:
        """The callee's initial metadata. Empty if no attempt was sent."""
        rpc = self._begun().rpc
        return () if rpc is None else rpc.initial_metadata()

    def trailing_metadata(self) -> Any:
        """Wait for the end of the call. Returns the callee's trailing metadata: empty if no attempt was sent."""
        rpc = self._begun().rpc
        return () if rpc is None else rpc.trailing_metadata()

    def code(self) -> grpc.StatusCode:
        """Wait for the end of the call. Returns the callee's status, or the status of a policy's error."""
        state = self._begun()
        if not isinstance(state, Ended):
            code: grpc.StatusCode = self._rpc().code()
            return code
        return grpc.StatusCode.OK if state.error is None else status_of(state.error)

    def details(self) -> str:
        """The text of the status."""
        state = self._begun()
        return details_of(state.error) if isinstance(state, Ended) else str(self._rpc().details())

    def _begun(self) -> State:
        """Fetch the first message if the call has not begun. Returns the state of the call."""
        if isinstance(self._attempts.state, Made):
            first: Future[Any] = Future()
            try:
                first.set_result(next(self._messages))
            except Exception as error:  # noqa: BLE001  # the first iteration raises it
                first.set_exception(error)
            self._first = first
        return self._attempts.state

    def _rpc(self) -> Any:
        rpc = self._attempts.state.rpc
        if rpc is None:
            raise AttributeError(f"{self._attempts.method.outbound.name}: no attempt of this call was sent")
        return rpc

    def cancel(self) -> bool:
        """Stop the call. True if it was still running."""
        return self._attempts.stop()

    def close(self) -> None:
        """End the call. After its end this method does nothing. A thread that waits for a message gets an error."""
        try:
            self._messages.close()
        except ValueError:  # another thread runs the generator, because it waits for a message
            self.cancel()


def _answer(attempts: Attempts, request: Any) -> Any:
    """Make one attempt of a call with one answer."""
    scope = current_scope()
    try:
        answer, rpc = attempts.invoke(request, scope, NEVER if scope is None else scope.expires)
    except grpc.RpcError as error:
        attempts.raise_explained(error)
        raise
    attempts.has_sent(rpc)
    return answer


def _messages(attempts: Attempts, request: Any) -> Generator[Any, None, None]:
    error: BaseException | None = None
    attempts.begin()
    attempts.enter()
    try:
        for message in attempts.method.outbound.stream_sync(_answers, attempts, request):
            attempts.leave()  # the consumer's code runs between messages, outside the scope of the attempt
            yield message
    except BaseException as raised:
        error = raised
        raise
    finally:
        if attempts.state.rpc is not None:
            attempts.state.rpc.cancel()
        attempts.end(error)


def _answers(attempts: Attempts, request: Any) -> Iterator[Any]:
    """Make one attempt of a call with many answers. Cancel the previous RPC, which may still occupy its thread."""
    if attempts.state.rpc is not None:
        attempts.state.rpc.cancel()
    scope = current_scope()
    try:
        yield from attempts.send(request, scope, NEVER if scope is None else scope.limit)
    except grpc.RpcError as error:
        attempts.raise_own_fault(error)
        raise
