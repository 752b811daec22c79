"""Idle times of HTTP connections and WebSockets."""

from __future__ import annotations

from voice_policies.measure import Duration

IDLE_TIMEOUT = Duration("60s")
"""The gateway and a server's mesh proxy close a connection to the server after this time without a request."""
KEEP_ALIVE = Duration("75s")
"""A server closes a connection after this time without a request. The time is longer than `IDLE_TIMEOUT`. So no proxy
sends a request on a connection that the server is closing."""
PING_INTERVAL = Duration("20s")
"""The time between two pings that a server sends on a WebSocket, and the server's longest wait for an answer. Both are
uvicorn's defaults."""
STREAM_IDLE_TIMEOUT = Duration("60s")
"""A gateway cuts a WebSocket after this time without a byte. The time is three times `PING_INTERVAL`, so the gateway
tolerates a ping that is almost two intervals late."""
