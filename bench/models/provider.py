"""A fake provider in a process of its own. It is fast, because it builds its answers before a request arrives."""

from __future__ import annotations

import asyncio
from typing import Any

from voice_models.fake_answers import chat, chat_stream
from voice_models.fake_provider import Answer, FakeProvider, FakeRequest

FIRST_TOKEN = 0.1
"""Seconds until the first token of the short stream."""
CHUNKS = 500
"""Number of text chunks in the long stream."""
LONG, SHORT, WHOLE = chat_stream(*["token "] * CHUNKS), chat_stream("a", "b", first=FIRST_TOKEN), chat("answer")


def script(request: FakeRequest) -> Answer:
    """A whole answer if the request asks for no stream, the long stream for the user `long`, else the short stream."""
    body = request.json()
    if not body.get("stream"):
        return WHOLE
    return LONG if body.get("user") == "long" else SHORT


def serve(ports: Any) -> None:
    """Put the server's port into the queue `ports`, and serve until the process is ended."""

    async def run() -> None:
        async with FakeProvider(script).serve() as port:
            ports.put(port)
            await asyncio.Event().wait()

    asyncio.run(run())
