"""A small HTTP server for the probes, and the wait for SIGTERM. Needs the extra `health`."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from queue import SimpleQueue
from threading import Thread

import uvicorn
from voice_policies import KEEP_ALIVE, PING_INTERVAL

from voice_runtime.asgi import Application

__all__ = ["serving", "serving_in_thread", "terminated"]


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process, because it must drain before the server stops."""
        yield


@asynccontextmanager
async def serving(app: Application, port: int, host: str = "0.0.0.0") -> AsyncIterator[int]:  # noqa: S104  # kubelet probes the pod's address
    """Serve an application on this event loop, and yield the port. For port 0 the system chooses a free port.

    At the end of the block the server refuses new requests, and finishes the requests in flight. Raises `OSError` if
    the port is in use.
    """
    listener = socket.create_server((host, port))
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE.whole_seconds(),
            ws_ping_interval=PING_INTERVAL.seconds,
            ws_ping_timeout=PING_INTERVAL.seconds,
        )
    )
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def terminated() -> None:
    """Wait for SIGTERM or SIGINT. Afterwards call `health.drain()`, and then stop the servers."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


@contextmanager
def serving_in_thread(app: Application, port: int, host: str = "0.0.0.0") -> Iterator[int]:  # noqa: S104  # as above
    """Like `serving`, on a separate thread with an event loop: for a service without a loop."""
    ports: SimpleQueue[int | BaseException] = SimpleQueue()
    stops: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with serving(app, port, host) as bound:
            stops.put((asyncio.get_running_loop(), stop))
            ports.put(bound)
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:  # noqa: BLE001  # raised in the thread that waits for the port
            ports.put(error)

    thread = Thread(target=run, name="voice-health", daemon=True)
    thread.start()
    bound = ports.get()
    if isinstance(bound, BaseException):
        raise bound
    try:
        yield bound
    finally:
        loop, stop = stops.get()
        loop.call_soon_threadsafe(stop.set)
        thread.join()
