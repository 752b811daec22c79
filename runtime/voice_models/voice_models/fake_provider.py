"""A fake model provider. A test controls the time and content of each byte, and every fault.

provider = FakeProvider(lambda request: chat_stream("Hello", " world"))
async with provider.serve() as port: ...

The argument, the script, decides the answer to each request. `fake_answers` has answers for OpenAI's endpoints.
`serve` listens on loopback. `FakeNetwork` carries requests to several providers without sockets, so that tests run on a
fake clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

__all__ = ["Answer", "Exchange", "FakeNetwork", "FakeProvider", "FakeRequest", "Pause", "cut", "stall"]

REASONS = {200: "OK"}


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait in seconds before the next bytes."""

    seconds: float


stall = Pause(86_400)
"""A step at which the provider sends nothing for a day, and the connection stays open."""
cut: Literal["cut"] = "cut"
"""A step at which the provider closes the connection in the middle of the answer."""
Step = bytes | Pause | Literal["cut"]


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """A request as the provider received it."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers, and the steps of a body."""

    steps: tuple[Step, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the status."""

    def then(self, *steps: Step) -> Answer:
        """The same answer with more steps."""
        return Answer((*self.steps, *steps), self.status, self.headers, self.delay)


@dataclass(slots=True)
class Exchange:
    """One request, and the progress of its answer."""

    request: FakeRequest
    written: int = 0
    """Number of steps whose bytes were written."""
    ending: Literal["open", "complete", "cut", "closed_by_client"] = "open"
    ended_at: float = 0.0
    """Time of the end, by the event loop's clock. 0 before the end."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """Record the end, once. An answer that is still open counts as closed by the client."""
        if self.ended.is_set():
            return
        if self.ending == "open":
            self.ending = "closed_by_client"
        self.ended_at = asyncio.get_running_loop().time()
        self.ended.set()


Write = Callable[[bytes], Awaitable[None]]


class FakeProvider:
    """Answers each request as `script` decides. Change `script` between requests to change the answers."""

    def __init__(self, script: Callable[[FakeRequest], Answer]) -> None:
        self.script = script
        self.accepts = True
        """If false, `FakeNetwork` refuses connections, and `serve` closes a connection instead of answering."""
        self.connect_delay = 0.0
        """Seconds until a connection of `FakeNetwork` opens."""
        self.exchanges: list[Exchange] = []

    def receive(self, request: FakeRequest) -> tuple[Exchange, Answer]:
        """Record a request and decide its answer."""
        exchange = Exchange(request)
        self.exchanges.append(exchange)
        return exchange, self.script(request)

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[int]:
        """Listen on loopback. Yields the port. Leaving the block closes every connection."""
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not self.accepts:
                writer.close()
                return
            task = asyncio.ensure_future(self._serve_connection(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in tuple(connections):
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: HTTP/1.1 with chunked answers, one request after the other."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    request = await _read_request(reader)
                    if not self.accepts:  # `accepts` may change while the connection is idle
                        break
                    exchange, answer = self.receive(request)
                    playing = asyncio.ensure_future(self._send_answer(writer, exchange, answer))
                    # A client sends nothing while it waits, so this read ends only if the client disconnects.
                    disconnected = asyncio.ensure_future(reader.read(1))
                    try:
                        await asyncio.wait({playing, disconnected}, return_when=asyncio.FIRST_COMPLETED)
                        finished = playing.done()
                    finally:
                        playing.cancel()
                        disconnected.cancel()
                        await asyncio.gather(playing, disconnected, return_exceptions=True)
                        exchange.end()  # a cancelled task may not have reached `play`, which records the end
                    if not finished or exchange.ending == "cut":
                        break
        finally:
            writer.close()

    async def _send_answer(self, writer: asyncio.StreamWriter, exchange: Exchange, answer: Answer) -> None:
        async def write(content: bytes) -> None:
            writer.write(b"%x\r\n%b\r\n" % (len(content), content))
            await writer.drain()

        if answer.delay:
            await asyncio.sleep(answer.delay)
        headers = {"transfer-encoding": "chunked", **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Fault')}"]
        writer.write("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]).encode())
        await play(exchange, answer, write)
        if exchange.ending == "complete":
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def play(exchange: Exchange, answer: Answer, write: Write) -> None:
    """Write the steps of an answer, each at its time, and record the ending."""
    try:
        for step in answer.steps:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, bytes):
                await write(step)
                exchange.written += 1
            else:
                exchange.ending = "cut"
                return
        exchange.ending = "complete"
    finally:
        exchange.end()


async def _read_request(reader: asyncio.StreamReader) -> FakeRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    path = head[0].split(" ")[1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return FakeRequest(path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


class FakeNetwork(httpx.AsyncBaseTransport):
    """Carries requests to providers by their host, without sockets. A provider writes even if nobody reads."""

    def __init__(self, providers: Mapping[str, FakeProvider]) -> None:
        self._providers = providers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the provider at the request's host.

        Raises `httpx.ConnectTimeout` if `connect_delay` exceeds the request's connect timeout, and `httpx.ConnectError`
        if the provider does not accept connections.
        """
        provider = self._providers[request.url.host]
        limit = request.extensions.get("timeout", {}).get("connect")
        if limit is not None and provider.connect_delay > limit:
            await asyncio.sleep(limit)
            raise httpx.ConnectTimeout("the fake connection is slow", request=request)
        await asyncio.sleep(provider.connect_delay)
        if not provider.accepts:
            raise httpx.ConnectError("the fake provider refuses connections", request=request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        exchange, answer = provider.receive(FakeRequest(request.url.path, headers, await request.aread()))
        try:
            await asyncio.sleep(answer.delay)
        except asyncio.CancelledError:
            exchange.end()
            raise
        return httpx.Response(answer.status, headers=dict(answer.headers), stream=_FakeStream(exchange, answer))


class _FakeStream(httpx.AsyncByteStream):
    """The body of an answer. A task writes it, and closing the stream ends the task."""

    def __init__(self, exchange: Exchange, answer: Answer) -> None:
        self._exchange = exchange
        self._written: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._writer = asyncio.ensure_future(self._write(answer))

    async def _write(self, answer: Answer) -> None:
        try:
            await play(self._exchange, answer, self._written.put)
        finally:
            self._written.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (content := await self._written.get()) is not None:
            yield content
        if self._exchange.ending == "cut":
            raise httpx.RemoteProtocolError("the fake provider cut the connection")

    async def aclose(self) -> None:
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._exchange.end()  # a task that is cancelled before it runs records no end
