from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from components.valkey.server import PORT
from tests.loopback import free_port
from tests.redis_servers import NO_RETRY
from tests.stack.voiceassistant.tiers.real_cache import Member, eventually
from tests.stack.voiceassistant.tiers.real_servers import files, password_of

RENDERED = files("prod", "redis-config")["haproxy.cfg"]
DOMAIN = "voice-data.svc.cluster.local"
REPLICATED_WITHIN = 1.0
"""Longest time for a write to reach a replica on a busy machine, in seconds. Usually it takes a millisecond."""
PAUSE = 0.005
"""Seconds between two writes. A writer without pauses would take processor time from the servers."""


def on_loopback(port: int, servers: dict[str, int]) -> str:
    text = RENDERED.replace(f"bind :{PORT}", f"bind 127.0.0.1:{port}")
    for name, own in servers.items():
        text = text.replace(f"{name}.{DOMAIN}:{PORT}", f"127.0.0.1:{own}")
    return text


@contextmanager
def running_proxy(program: Path, file: Path, nodes: list[Member]) -> Iterator[int]:
    port = free_port()
    file.write_text(on_loopback(port, {node.name: node.port for node in nodes}))
    process = subprocess.Popen([program, "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        # The primary refuses writes until a replica follows it.
        eventually(lambda: leads_to_the_primary_alone(port) and service(port).set("identity-service:first", "1"))
        yield port
    finally:
        process.kill()
        process.wait()


def service(port: int) -> Any:
    return Redis(
        port=port,
        username="identity-service",
        password=password_of("identity-service-redis"),
        socket_timeout=2,
        retry=NO_RETRY,
        decode_responses=True,
    )


def leads_to_the_primary_alone(port: int) -> bool:
    """True if 12 connections all reach the primary. A proxy that sees several primaries spreads its connections."""
    clients: list[Any] = [Redis(port=port, username="health", password="", retry=NO_RETRY) for _ in range(12)]
    return {client.execute_command("ROLE")[0] for client in clients} == {b"master"}


@dataclass
class Writer:
    """A failed write is not repeated, so each key has at most one write."""

    port: int
    acknowledged: dict[str, float] = field(default_factory=dict)
    """Key → the time at which its write was acknowledged."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        client, number = service(self.port), 0
        while not self.stopping.wait(PAUSE):
            number += 1
            key = f"identity-service:{number}"
            try:
                client.set(key, key)
            except RedisError:
                continue
            self.acknowledged[key] = time.monotonic()

    def written_after(self, moment: float) -> bool:
        return max(self.acknowledged.values(), default=0) > moment

    def lost(self) -> dict[str, float]:
        """Acknowledged writes that the primary lacks."""
        client = service(self.port)
        keys = list(self.acknowledged)
        found = eventually(lambda: client.mget(keys))
        return {key: self.acknowledged[key] for key, value in zip(keys, found, strict=True) if value is None}

    @property
    def gap(self) -> float:
        """The longest time between two acknowledged writes, in seconds."""
        times = sorted(self.acknowledged.values())
        return max((after - before for before, after in pairwise(times)), default=0)


def replicated(lost: dict[str, float], stopped: float, elected: float) -> dict[str, float]:
    """Lost writes that should exist, because a replica had received them or the new primary acknowledged them."""
    return {key: moment for key, moment in lost.items() if not stopped - REPLICATED_WITHIN < moment < elected}


@contextmanager
def writing(port: int) -> Iterator[Writer]:
    writer = Writer(port)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        eventually(lambda: len(writer.acknowledged) > 20)
        yield writer
    finally:
        writer.stopping.set()
        thread.join()
