from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import free_port, wait_until
from tests.programs import directory, postgresql, unprivileged


class Postgresql:
    """A PostgreSQL server. `settings` are server parameters such as `fsync=off`."""

    def __init__(self, root: Path, settings: tuple[str, ...]) -> None:
        self._settings = [part for setting in settings for part in ("-c", setting)]
        self.port = free_port()
        self.root = root
        self._data = root / "data"
        self._run("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-D", str(self._data))

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(postgresql() / program), *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            **unprivileged(),
        )
        assert done.returncode == 0, done.stderr
        output: str = done.stdout
        return output

    def start(self) -> None:
        command = [
            str(postgresql() / "postgres"), "-D", str(self._data), "-p", str(self.port), "-k", str(self.root),
            "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60", "-c", "shared_buffers=64MB",
            *self._settings,
        ]  # fmt: skip
        with (self.root / "log").open("a") as log:
            self._process = subprocess.Popen(command, cwd=self.root, stderr=log, **unprivileged())
        wait_until(
            lambda: self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port)),
            AssertionError,
            process=self._process,
            log=self.root / "log",
        )

    def kill(self) -> None:
        """End the server at once, without a checkpoint. Its next start replays the write-ahead log."""
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
        server = Postgresql(root, settings)
        server.start()
        try:
            yield server
        finally:
            server.kill()
