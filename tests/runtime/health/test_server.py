from __future__ import annotations

import asyncio

import pytest
from voice_policies import KEEP_ALIVE, Duration
from voice_runtime.asgi import Receive, Scope, Send
from voice_runtime.health import server
from voice_runtime.health.server import serving

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def idle_close(monkeypatch: pytest.MonkeyPatch, keep_alive: Duration) -> bytes:
    monkeypatch.setattr(server, "KEEP_ALIVE", keep_alive)
    async with serving(answer, 0, "127.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.read(), 7)
        finally:
            writer.close()


async def test_an_idle_connection_is_closed_after_the_keep_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await idle_close(monkeypatch, Duration("1s")) == b""


async def test_an_idle_connection_stays_open_longer_than_uvicorns_default_of_5_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(TimeoutError):
        await idle_close(monkeypatch, KEEP_ALIVE)
