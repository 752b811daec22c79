"""Real servers on loopback: PostgreSQL, Redis and a Temporal dev server, each from a wheel."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as NotListening

from tests.loopback import free_port, wait_until
from tests.stack.tiers.real_servers import NOBODY, POSTGRES, REDIS, directory

TEMPORAL = Path(sys.executable).with_name("temporal")


class Postgresql:
    """A server of its own, with the settings that PostgreSQL comes with."""

    def __init__(self, root: Path, settings: tuple[str, ...]) -> None:
        self._settings = [part for setting in settings for part in ("-c", setting)]
        self.port = free_port()
        self.root = root
        self._data = root / "data"
        self._run("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-D", str(self._data))

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(POSTGRES / program), *arguments], cwd=self.root, capture_output=True, text=True, check=False, **NOBODY
        )
        assert done.returncode == 0, done.stderr
        output: str = done.stdout
        return output

    def start(self) -> None:
        command = [
            str(POSTGRES / "postgres"), "-D", str(self._data), "-p", str(self.port), "-k", str(self.root),
            "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60", "-c", "shared_buffers=64MB",
            *self._settings,
        ]  # fmt: skip
        with (self.root / "log").open("a") as log:
            self._process = subprocess.Popen(command, cwd=self.root, stderr=log, **NOBODY)
        wait_until(lambda: self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port)), AssertionError)

    def kill(self) -> None:
        """As a power cut ends it."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def dsn(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def psql(self, statement: str, database: str = "postgres") -> str:
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database)
        return self._run("psql", "-XAt", "-v", "ON_ERROR_STOP=1", *where, "-c", statement).strip()


@contextmanager
def running_postgresql(*settings: str) -> Iterator[Postgresql]:
    with directory() as root:
        if NOBODY:
            subprocess.run(["/bin/chown", "nobody:nogroup", str(root)], check=True)
        server = Postgresql(root, settings)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def running_redis() -> Iterator[int]:
    """Its port."""
    with directory() as root:
        port = free_port()
        command = [str(REDIS), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(root)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: Redis(port=port).ping(), NotListening)
            yield port
        finally:
            process.kill()
            process.wait()


@contextmanager
def running_temporal() -> Iterator[str]:
    """Its address. What it keeps is in memory."""
    port = free_port()
    command = [
        str(TEMPORAL), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
        "--log-level", "error", "--dynamic-config-value", "system.forceSearchAttributesCacheRefreshOnRead=true",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    health = [str(TEMPORAL), "operator", "cluster", "health", "--address", f"127.0.0.1:{port}"]
    try:
        wait_until(lambda: subprocess.run(health, check=True, capture_output=True), subprocess.CalledProcessError)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
