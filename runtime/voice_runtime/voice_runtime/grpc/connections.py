"""Connections: one channel for each target in each event loop, or in the process for code without an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from voice_runtime.assembly import Assembled

CONNECTION_AGE = 300.0
"""Greatest age of a channel, in seconds. Then a new channel replaces it, and calls reach new replicas. gRPC A9
recommends such an age. Our servers use the same 5 minutes. The actual age is up to a tenth less, at random. So replicas
do not reconnect at the same time."""
KEEPALIVE_INTERVAL = 330.0
"""Seconds between pings while calls are in flight. By default a server disconnects a client that pings more often than
every 300 s (gRPC A8). The interval is a tenth longer, because clocks differ."""
CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),  # the runtime retries; retries by gRPC, too, would multiply the attempts
    (
        "grpc.use_local_subchannel_pool",
        1,
    ),  # otherwise channels of one address share a connection, and a new channel would not find new replicas
    ("grpc.enable_http_proxy", 0),  # a proxy from environment variables would see the cluster's traffic
    ("grpc.keepalive_time_ms", round(KEEPALIVE_INTERVAL * 1000)),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_reconnect_backoff_ms", 10_000),  # the longest delay of the platform's retries; gRPC's default is 120 s
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options and interceptors that a service gives for a channel or a server, in addition to the runtime's."""

    options: tuple[tuple[str, Any], ...] = ()
    interceptors: tuple[Any, ...] = ()

    @classmethod
    def beside(
        cls, ours: Iterable[tuple[str, Any]], options: Iterable[tuple[str, Any]], interceptors: Iterable[Any]
    ) -> Settings:
        """The settings of a service. Raises `ValueError` for an option in `ours`, which the runtime sets itself."""
        settings = cls(tuple(options), tuple(interceptors))
        reserved = {name for name, _ in ours}
        if taken := sorted(name for name, _ in settings.options if name in reserved):
            raise ValueError(f"the runtime sets {', '.join(taken)} itself: leave them out")
        return settings


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a callee, and how to connect."""

    address: str
    """The address in gRPC's format: `dns:///host:port`, `ipv4:…`, `unix:…`."""
    credentials: grpc.ChannelCredentials | None = None
    """The credentials of the channel. `None` means plaintext."""
    server_name: str | None = None
    """The name in the server's certificate, if `address` is the address of a proxy."""
    settings: Settings = Settings()

    def open(self) -> Any:
        """Open a channel of `grpc.aio`."""
        interceptors = self.settings.interceptors
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, options=self._options(), interceptors=interceptors)
        return grpc.aio.secure_channel(
            self.address, self.credentials, options=self._options(), interceptors=interceptors
        )

    def open_sync(self) -> Any:
        """Open a channel of `grpc`."""
        if self.credentials is None:
            channel = grpc.insecure_channel(self.address, options=self._options())
        else:
            channel = grpc.secure_channel(self.address, self.credentials, options=self._options())
        return grpc.intercept_channel(channel, *self.settings.interceptors)

    def _options(self) -> list[tuple[str, Any]]:
        authority = (("grpc.default_authority", self.server_name),) if self.server_name is not None else ()
        return [*CHANNEL_OPTIONS, *authority, *self.settings.options]


Locate = Callable[[Assembled], Target]
"""Finds a callee's target in the current bundle."""


class Connection:
    """A channel, and the time at which a new one replaces it."""

    __slots__ = ("channel", "expires")

    def __init__(self, channel: Any, expires: float) -> None:
        self.channel = channel
        self.expires = expires


class _OfLoop:
    """The open connections of one event loop."""

    def __init__(self) -> None:
        self.kept: dict[Target, Connection] = {}
        self.replaced: dict[asyncio.Task[None], Connection] = {}
        """Task that will close a connection → the replaced connection."""

    def replace(self, target: Target, grace: float) -> None:
        """Stop using a connection for new calls, and close the connection after `grace` seconds.

        In this time every call on the connection ends. A retry uses the connection of the first attempt, so the old
        connection still accepts retries.
        """
        connection = self.kept.pop(target)
        closing = asyncio.get_running_loop().create_task(_close_after(grace, connection))
        self.replaced[closing] = connection
        closing.add_done_callback(lambda task: self.replaced.pop(task, None))

    async def close(self, grace: float) -> None:
        """Close everything. Calls in flight get `grace` seconds to end."""
        connections = [*self.kept.values(), *self.replaced.values()]
        for connection in self.kept.values():
            connection.expires = float("-inf")
        for closing in self.replaced:
            closing.cancel()
        await asyncio.gather(*(connection.channel.close(grace) for connection in connections))


async def _close_after(grace: float, connection: Connection) -> None:
    await asyncio.sleep(grace)
    await connection.channel.close(None)


class Connections:
    """The channels of one process. An asynchronous channel belongs to the event loop in which it was opened."""

    def __init__(self, now: Callable[[], float], uniform: Callable[[float, float], float]) -> None:
        self._now = now
        self._uniform = uniform
        self._by_loop: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        self._by_process: dict[int, dict[Target, Connection]] = {}

    def of(self, target: Target, grace: float) -> Connection:
        """The connection to a target. An old connection is replaced, and closes `grace` seconds later."""
        opened = self._of_this_loop()
        connection = opened.kept.get(target)
        if connection is None or self._is_old(connection):
            for old in [each for each, kept in opened.kept.items() if self._is_old(kept)]:
                opened.replace(old, grace)
            connection = opened.kept[target] = self._until_old(target.open())
        return connection

    def of_process(self, target: Target) -> Connection:
        """Like `of`, for code without an event loop. A replaced connection closes when the last call on it ends."""
        kept = self._by_process.setdefault(os.getpid(), {})
        connection = kept.get(target)
        if connection is None or self._is_old(connection):
            for old in [each for each, other in list(kept.items()) if self._is_old(other)]:
                kept.pop(old, None)
            connection = kept[target] = self._until_old(target.open_sync())
        return connection

    async def close(self, grace: float) -> None:
        """Close this loop's connections. Calls in flight get `grace` seconds to end."""
        await self._by_loop.pop(asyncio.get_running_loop(), _OfLoop()).close(grace)

    def _is_old(self, connection: Connection) -> bool:
        return self._now() >= connection.expires

    def _until_old(self, channel: Any) -> Connection:
        return Connection(channel, self._now() + self._uniform(0.9 * CONNECTION_AGE, CONNECTION_AGE))

    def _of_this_loop(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        opened = self._by_loop.get(loop)
        if opened is None:
            for closed in [kept for kept in list(self._by_loop) if kept.is_closed()]:
                self._by_loop.pop(closed, None)  # no new dict, because other threads may add their loops meanwhile
            opened = self._by_loop[loop] = _OfLoop()
        return opened
