"""httpx transports under the providers' official SDKs.

runtime = ModelRuntime(Runtime.load("/etc/voice/policy"))
client = AsyncOpenAI(http_client=httpx.AsyncClient(transport=ModelTransport(runtime, "llm.generate")))

The transport sets host, API key and model of each attempt, and ignores the SDK's values. The SDK gets a failed call as
a `ModelError`, never as a provider's error status. An SDK never retries after a `ModelError`: SDKs retry only after
httpx errors and HTTP statuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx
from voice_runtime.http.connections import PooledTransport
from voice_runtime.shared_store import LoopThread

from voice_models.request import ModelRequest
from voice_models.routed_call import RoutedCall
from voice_models.runtime import ModelRuntime

_SYNCHRONOUS = LoopThread()


class ModelTransport(httpx.AsyncBaseTransport):
    """For `httpx.AsyncClient(transport=…)`.

    It returns the response when the first content has arrived. The stream of the response raises `ModelStreamError` if
    the answer breaks off.
    """

    def __init__(self, runtime: ModelRuntime, name: str, inner: httpx.AsyncBaseTransport | None = None) -> None:
        """Create a transport for the outbound call `name`, which must have a route. Raises `UnknownCallError`.

        `inner` sends the requests; the default is httpx's own transport, with a pool for each event loop.
        """
        runtime.declared(name)
        self._runtime = runtime
        self._name = name
        self._inner = inner or PooledTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the candidates of the route, one after the other, until a candidate answers.

        If the route has a hedge, a second candidate may get the request before the first one has answered. Raises
        `ModelError` and `BulkheadFullError`. Raises `ValueError` for an unknown endpoint, or for a body that is not a
        JSON object.
        """
        content = await request.aread()
        declared = _, models, route = self._runtime.declared(self._name)  # later, a reload may replace the bundle
        limit = models.routes[route].output_limit
        read = ModelRequest(request, content, limit.max_tokens if limit else None)
        return await RoutedCall(self._runtime, declared, read, self._inner.handle_async_request).response()

    async def aclose(self) -> None:
        """Wait for unfinished writes of usage events and cached answers, then close the running loop's connections."""
        await self._runtime.drain()
        await self._inner.aclose()


class SyncModelTransport(httpx.BaseTransport):
    """For `httpx.Client(transport=…)`; otherwise like `ModelTransport`.

    The call runs on the event loop of another thread, because a blocking socket supports neither a changing deadline
    nor cancellation.
    """

    def __init__(
        self,
        runtime: ModelRuntime,
        name: str,
        inner: httpx.AsyncBaseTransport | None = None,
        thread: LoopThread = _SYNCHRONOUS,
    ) -> None:
        """Like `ModelTransport`. `inner` is asynchronous, and only the event loop of `thread` uses it."""
        self._transport = ModelTransport(runtime, name, inner)
        self._run = thread.run

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Like `ModelTransport.handle_async_request`. The deadline and the `Caller` of the calling thread apply."""
        read = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        response = self._run(self._transport.handle_async_request(read))
        stream = _SyncStream(response.stream, self._run)  # type: ignore[arg-type]  # the stream of an asynchronous transport
        headers, extensions = response.headers, response.extensions
        return httpx.Response(response.status_code, headers=headers, stream=stream, extensions=extensions)

    def close(self) -> None:
        """Like `ModelTransport.aclose`."""
        self._run(self._transport.aclose())


class _SyncStream(httpx.SyncByteStream):
    """Reads an asynchronous stream chunk by chunk, on the event loop of the other thread."""

    def __init__(self, stream: httpx.AsyncByteStream, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._stream = stream
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        # No `finally` closes `chunks`, because `run` would wait forever if the garbage collector drops this generator
        # on the event loop's own thread. When `chunks` is dropped, the event loop closes the connection.
        chunks = aiter(self._stream)
        while (chunk := self._run(_next(chunks))) is not None:
            yield chunk

    def close(self) -> None:
        """Close the provider's connection."""
        self._run(self._stream.aclose())


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)
