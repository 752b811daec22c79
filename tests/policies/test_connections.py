from __future__ import annotations

from voice_policies import IDLE_TIMEOUT, KEEP_ALIVE, PING_INTERVAL, STREAM_IDLE_TIMEOUT


def test_a_server_keeps_an_idle_connection_longer_than_any_proxy_does() -> None:
    assert IDLE_TIMEOUT < KEEP_ALIVE


def test_the_idle_timeout_of_a_websocket_is_longer_than_two_ping_intervals() -> None:
    assert PING_INTERVAL * 2 < STREAM_IDLE_TIMEOUT
