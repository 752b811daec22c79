"""Idle times of HTTP connections and WebSockets."""

from __future__ import annotations

from voice_policies.measure import Duration

IDLE_TIMEOUT = Duration("60s")
"""The time without a request after which the gateway or a server's mesh proxy closes a connection to the server."""
KEEP_ALIVE = Duration("75s")
"""The time without a request after which a server closes a connection. It is longer than `IDLE_TIMEOUT`, so that no
proxy sends a request on a connection that the server is closing."""
PING_INTERVAL = Duration("20s")
"""The time between two pings of a server on a WebSocket, and its longest wait for an answer: uvicorn's default."""
STREAM_IDLE_TIMEOUT = Duration("60s")
"""A gateway cuts a WebSocket that has carried no byte for this long: three times `PING_INTERVAL`, so that a ping
may be up to two intervals late."""
