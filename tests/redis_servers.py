from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.loopback import free_port
from tests.programs import valkey

NO_RETRY = Retry(NoBackoff(), 0)
"""By default redis-py repeats a failed command for seconds, even if the server refused the password."""
SLOTS = 16_384
PATIENCE = 180.0
"""Longest wait for a condition on a busy machine, in seconds."""


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline, f"after {PATIENCE:.0f} s it is still not true that {what}"
        time.sleep(0.05)


class Server:
    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        network = ("--port", str(self.port), "--bind", "127.0.0.1")
        self._command = [str(valkey()), *options, *network, "--dir", str(directory)]
        self._log = directory / f"{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *command: str | int) -> Any:
        """The server's answer to a command, which redis-py does not convert."""
        with Redis(port=self.port, socket_timeout=5, decode_responses=True, protocol=2, retry=NO_RETRY) as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._answers, f"Valkey on {self.port} answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return bool(self.ask("PING") == "PONG")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def single(directory: Path) -> Iterator[Server]:
    server = Server(directory, "--save", "")
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def watched_by_sentinels(directory: Path) -> Iterator[tuple[list[Server], list[Server]]]:
    with ExitStack() as stack:
        primary = stack.enter_context(single(directory))
        replica = Server(directory, "--save", "", "--replicaof", "127.0.0.1", str(primary.port))
        stack.callback(replica.kill)
        sentinels = []
        for number in range(3):
            file = directory / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor cache 127.0.0.1 {primary.port} 2\n"
                "sentinel down-after-milliseconds cache 1000\nsentinel failover-timeout cache 5000\n"
            )
            sentinels.append(Server(directory, str(file), "--sentinel"))
            stack.callback(sentinels[-1].kill)
        until(lambda: "state=online" in primary.ask("INFO", "replication"), "the replica follows")
        until(lambda: all(_knows_all(sentinel) for sentinel in sentinels), "the Sentinels know each other")
        yield [primary, replica], sentinels


def _knows_all(sentinel: Server) -> bool:
    (primary,) = sentinel.ask("SENTINEL", "MASTERS")
    known = dict(zip(primary[::2], primary[1::2], strict=True))
    return (known["num-slaves"], known["num-other-sentinels"]) == ("1", "2")


@contextmanager
def cluster(directory: Path) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        servers = []
        for number in range(3):
            home = directory / f"node-{number}"
            home.mkdir()
            servers.append(Server(home, "--save", "", "--cluster-enabled", "yes"))
            stack.callback(servers[-1].kill)
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for server, first, end in zip(servers, bounds, bounds[1:], strict=False):
            server.ask("CLUSTER", "ADDSLOTS", *range(first, end))
        for server in servers[1:]:
            servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port)
        until(lambda: all("cluster_state:ok" in s.ask("CLUSTER", "INFO") for s in servers), "the cluster is up")
        yield servers
