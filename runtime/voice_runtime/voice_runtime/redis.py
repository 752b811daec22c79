"""Redis or Valkey as the store that replicas share. Needs the extra `redis`.

runtime = Runtime.load("/etc/voice/policy", store=RedisStore(lambda: single("redis://redis:6379")))

The bundle declares a call to the store. The policies of this call bound the time of each command, and decide on
retries. The client itself never repeats a command, and limits only the time for connecting.
"""

from __future__ import annotations

import asyncio
from asyncio import Semaphore
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio import ConnectionPool, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError

from voice_runtime.attempt import before_sending
from voice_runtime.shared_store import PerLoop, Script

__all__ = ["Connections", "RedisStore", "cluster", "sentinel", "single"]

CONNECTIONS = 32
"""Maximum number of commands that one event loop runs at the same time on a server or on a cluster. Each command in
flight has its own connection. Further commands wait, within their timeout."""
CONNECT_TIMEOUT = 1.0
"""Timeout in seconds for connecting to a server or a Sentinel."""


def _options(**options: Any) -> dict[str, Any]:
    """Options of a connection, with these defaults.

    The default is no socket timeout, because a socket timeout would cost a timer and a task for each command.
    """
    return {
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }


def _checked(url: str) -> str:
    """`url`. Raises `ValueError` unless it begins with a known scheme and two slashes.

    Without the slashes redis-py would connect to localhost.
    """
    if not url.startswith(("redis://", "rediss://", "unix://")):
        # The message does not show the URL, because it may hold a password.
        raise ValueError("the URL of a store must begin with redis://, rediss:// or unix://")
    return url


def single(url: str, **options: Any) -> Connections:
    """One server, or a proxy that leads to the primary: `redis://`, `rediss://` or `unix://`.

    `options` are redis-py's, such as `username` and `password`.
    """
    return Connections(ConnectionPool.from_url(_checked(url), **_options(**options)))


def sentinel(
    addresses: Iterable[tuple[str, int]],
    service_name: str,
    *,
    sentinel_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Connections:
    """The primary, found through the Sentinels at `addresses`.

    Each new connection asks all Sentinels at once. It takes the first answer that names the primary. So a failed
    Sentinel costs the call no time.

    `options` are for the connections to the primary, and `sentinel_options` for the connections to the Sentinels, such
    as another `password`.
    """
    asked = _Sentinels(
        addresses, sentinel_kwargs=_options(**{"socket_timeout": CONNECT_TIMEOUT, **(sentinel_options or {})})
    )
    return Connections(asked.master_for(service_name, **_options(**options)).connection_pool)


def cluster(url: str, **options: Any) -> Cluster:
    """The cluster to which the server at `url` belongs."""
    return Cluster(RedisCluster.from_url(_checked(url), **_options(**options)))


class _Sentinels(Sentinel):
    """Asks all Sentinels at once. redis-py asks one after the other, and a silent one would delay each call."""

    def __init__(self, addresses: Iterable[tuple[str, int]], sentinel_kwargs: Mapping[str, Any]) -> None:
        super().__init__((), sentinel_kwargs=sentinel_kwargs)  # type: ignore[no-untyped-call]  # redis-py's
        self._each = [Sentinel([address], sentinel_kwargs=sentinel_kwargs) for address in addresses]  # type: ignore[no-untyped-call]  # redis-py's

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the primary. Raises `MasterNotFoundError` if no Sentinel names it."""
        asking: list[asyncio.Task[tuple[str, int]]] = [
            asyncio.ensure_future(each.discover_master(service_name)) for each in self._each
        ]
        errors = []
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except RedisError as error:
                    errors.append(str(error))
            raise MasterNotFoundError("; ".join(errors))
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


class Connections:
    """Connections to one server, created by redis-py's `pool`.

    A connection is reused only after an answer was read completely, so no command gets a cancelled command's answer.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._make: Callable[[], Any] = pool.make_connection
        self._idle: list[Any] = []
        """Open connections that no command uses. They are `Any`, because the types of redis-py are incomplete."""
        self._slots = Semaphore(CONNECTIONS)

    async def execute(self, *command: str | bytes | float) -> Any:
        """The server's answer. Raises redis-py's errors."""
        with before_sending():
            packed = _packed(command)
            await self._slots.acquire()
        try:
            return await self._asked(packed)
        finally:
            self._slots.release()

    async def _asked(self, packed: bytes) -> Any:
        connection = self._idle.pop() if self._idle else self._make()
        try:
            if connection.is_connected and connection._reader.at_eof():  # noqa: SLF001  # redis-py notices a closed connection only by a read
                await connection.disconnect(nowait=True)  # the server or a proxy has closed the idle connection
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(packed)
            answer = await connection.read_response()
        except BaseException as error:
            if isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError):
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
                await self._drop_idle_connections(error)
            raise
        self._idle.append(connection)
        return answer

    async def _drop_idle_connections(self, error: BaseException) -> None:
        """Drop the idle connections after an error, because a restart or failover ends all connections.

        Keep the idle connections after a cancellation.
        """
        if isinstance(error, Exception):
            await self.close()

    async def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


def _packed(command: tuple[str | bytes | float, ...]) -> bytes:
    """The command as an array of strings, as Redis reads it.

    This function replaces redis-py's packing, because that takes 10 % of the round trip.
    """
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        text = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


class Cluster:
    """The servers of a cluster. Each gets the commands for the keys in its slots."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._slots = Semaphore(CONNECTIONS)

    async def execute(self, *command: str | bytes | float) -> Any:
        """The answer of the server that has the command's keys. Raises redis-py's errors."""
        with before_sending():
            await self._slots.acquire()
        try:
            await self._client.initialize()  # otherwise commands that start together close each other's connections
            return await self._client.execute_command(*command)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class RedisStore:
    """Runs scripts by their digest. It calls `connect` once for each event loop, so no two loops share a connection."""

    def __init__(self, connect: Callable[[], Connections | Cluster]) -> None:
        self._servers = PerLoop(connect)

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> Any:
        """The script's answer. Raises `ConnectionError` for any error of the server or the network.

        If the server does not know the script, for example after a restart, this method sends the script's text.
        """
        servers = self._servers.get()
        try:
            try:
                return await servers.execute("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await servers.execute("EVAL", script.text, len(keys), *keys, *arguments)
        except (RedisError, RedisClusterException) as error:  # RedisClusterException is no RedisError
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close the running loop's connections."""
        servers = self._servers.pop()
        if servers is not None:
            await servers.close()
