"""The replicated cache's rendered files, held by real servers and Sentinels: Redis 6.2 stands in for Valkey."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from components.valkey.replicated import SENTINEL_PORT, ReplicatedValkey
from components.valkey.server import PORT
from tests.loopback import free_port
from tests.platforms import platform
from tests.stack.tiers.real_servers import REDIS, VALKEY_PATHS, Place, answers_probe, files, password_of

PARTS = [f"redis-{part}-{index}" for part in ("node", "sentinel") for index in range(3)]
FAILOVER_SECONDS = 40


class Member:
    """One pod's place, its port and its process."""

    def __init__(self, root: Path, name: str, ports: dict[str, int]) -> None:
        self.name, self.port = name, ports[name]
        self.place = Place(root / name, VALKEY_PATHS)
        self.place.mount_secrets("redis", "prod")
        (root / name / "bin").mkdir()
        (root / name / "bin" / "valkey-cli").write_text("#!/bin/sh\nexit 1\n")
        (root / name / "bin" / "valkey-cli").chmod(0o755)
        for file, text in files("prod", "redis-config").items():
            self.place.write(f"/etc/valkey/{file}", text)
        part = name.rsplit("-", 1)[0].removeprefix("redis-")
        script = self.place.inside(f"/etc/valkey/configure-{part}.sh")
        path = f"{root / name / 'bin'}:/usr/bin:/bin"
        subprocess.run(["/bin/sh", str(script)], check=True, env={"POD_NAME": name, "PATH": path})
        self.file = self.place.inside("/run/valkey") / ("sentinel.conf" if part == "sentinel" else "valkey.conf")
        self.file.write_text(self._on_loopback(self.file.read_text(), ports, part))
        command = [str(REDIS), str(self.file), *(["--sentinel"] if part == "sentinel" else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def _on_loopback(self, text: str, ports: dict[str, int], part: str) -> str:
        """Each pod's name and its port become loopback and a port of its own."""
        for name, port in ports.items():
            text = text.replace(f"{name} {PORT}", f"127.0.0.1 {port}")
            text = re.sub(rf"(announce-ip) {name}$", r"\1 127.0.0.1", text, flags=re.MULTILINE)
        standard = SENTINEL_PORT if part == "sentinel" else PORT
        return text.replace(f"port {standard}\n", f"port {self.port}\n", 1)

    def ask(self, *command: str, user: str | None = "health", password: str = "") -> Any:
        client: Any = Redis(port=self.port, username=user, password=password, decode_responses=True)
        return client.execute_command(*command)


@contextmanager
def members(root: Path) -> Iterator[dict[str, Member]]:
    ports = {name: free_port() for name in PARTS}
    with ExitStack() as stack:
        running = {}
        for name in PARTS:
            running[name] = Member(root, name, ports)
            stack.callback(running[name].process.wait)
            stack.callback(running[name].process.kill)
        yield running


def eventually(holds: Any) -> Any:
    deadline = time.monotonic() + FAILOVER_SECONDS
    while True:
        try:
            if found := holds():
                return found
        except RedisError:  # a server that is gone, or in the middle of it
            found = None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def role(member: Member) -> str:
    return str(member.ask("ROLE")[0])


def test_on_redis_sentinels_replace_a_lost_primary_and_the_cache_takes_writes_again(tmp_path: Path) -> None:
    with members(tmp_path) as running:
        nodes = [running[name] for name in PARTS[:3]]
        sentinels = [running[name] for name in PARTS[3:]]

        def agreed() -> bool:
            flags = "num-slaves", "num-other-sentinels"
            known = [sentinel.ask("SENTINEL", "MASTER", "cache", user=None) for sentinel in sentinels]
            return all([int(each[flag]) for flag in flags] == [2, 2] for each in known)

        assert [eventually(lambda node=node: role(node)) for node in nodes] == ["master", "slave", "slave"]
        eventually(agreed)
        assert all(answers_probe("valkey", node.port) for node in nodes)
        assert all(answers_probe("sentinel", sentinel.port) for sentinel in sentinels)
        identity = {"user": "identity-service", "password": password_of("identity-service-redis")}
        eventually(lambda: nodes[0].ask("SET", "identity-service:1", "before", **identity))
        eventually(lambda: nodes[1].ask("GET", "identity-service:1", **identity) == "before")
        nodes[0].process.kill()
        (elected,) = eventually(lambda: [node for node in nodes[1:] if role(node) == "master"])
        assert eventually(lambda: elected.ask("SET", "identity-service:1", "after", **identity))


def replicated() -> ReplicatedValkey:
    (found,) = (each for each in platform("prod").components if isinstance(each, ReplicatedValkey))
    return found


@pytest.mark.parametrize(
    ("sentinels", "quorum", "sentences"),
    [
        (2, 2, ["sentinels is 2: expected an odd number from 3"]),
        (4, 2, ["sentinels is 4: expected an odd number from 3", "quorum is 2: of 4 sentinels expected 3 to 4"]),
        (3, 1, ["quorum is 1: of 3 sentinels expected 2 to 3"]),
        (3, 4, ["quorum is 4: of 3 sentinels expected 2 to 3"]),
    ],
)
def test_sentinels_that_cannot_form_a_quorum_are_refused(sentinels: int, quorum: int, sentences: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        ReplicatedValkey.model_validate({**dict(replicated()), "sentinels": sentinels, "quorum": quorum})
    assert all(sentence in str(caught.value) for sentence in sentences)
