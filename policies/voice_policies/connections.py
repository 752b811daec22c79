"""Idle times of connections, shared by every hop, so that no hop closes a connection that its caller still uses."""

from __future__ import annotations

from voice_policies.measure import Duration

IDLE_TIMEOUT = Duration("60s")
"""A gateway, a proxy or a client closes a connection to a server that has carried no request for this long."""
KEEP_ALIVE = Duration("75s")
"""A server closes a connection that has carried no request for this long: later than `IDLE_TIMEOUT`, so that no request
is sent on a connection that the server is closing."""
PING_INTERVAL = Duration("20s")
"""A server sends a ping this often on a WebSocket, and waits as long for the answer: uvicorn's default."""
STREAM_IDLE_TIMEOUT = Duration("60s")
"""A gateway cuts a WebSocket that has carried no byte for this long: three times `PING_INTERVAL`, so that two pings
in a row and their answers may be late."""
