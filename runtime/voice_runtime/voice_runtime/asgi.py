"""The types of ASGI 3, which the standard library lacks, and a function that answers with JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["Application", "Message", "Receive", "Scope", "Send", "respond"]

Scope = MutableMapping[str, Any]
"""The description of a connection, as ASGI passes it to an application."""
Message = MutableMapping[str, Any]
"""An event of a connection, received or sent."""
Receive = Callable[[], Awaitable[Message]]
"""Waits for the next event from the client."""
Send = Callable[[Message], Awaitable[None]]
"""Sends an event to the client."""
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""


async def respond(send: Send, status: int, document: dict[str, Any]) -> None:
    """Send an answer with a JSON document as its body."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode() + b"\n"})
