"""HAProxy itself on the rendered file of the cache's proxies, before real servers and Sentinels."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from components.valkey.server import PORT
from tests.loopback import free_port
from tests.stack.voiceassistant.tiers.real_cache import NODES, eventually, running_cache
from tests.stack.voiceassistant.tiers.real_servers import files, password_of

pytestmark = pytest.mark.integration
RENDERED = files("prod", "redis-config")["haproxy.cfg"]


def on_loopback(port: int, servers: dict[str, int]) -> str:
    """Only addresses and ports are the test's own."""
    text = RENDERED.replace(f"bind :{PORT}", f"bind 127.0.0.1:{port}")
    for name, own in servers.items():
        text = text.replace(f"{name}.voice-data.svc.cluster.local:{PORT}", f"127.0.0.1:{own}")
    return text


@contextmanager
def running_proxy(program: Path, file: Path, servers: dict[str, int]) -> Iterator[int]:
    """The port of its clients."""
    port = free_port()
    file.write_text(on_loopback(port, servers))
    process = subprocess.Popen([program, "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def leads_to_the_primary_alone(port: int) -> bool:
    """Each connection goes to another of the servers that it takes for the primary."""
    clients: list[Any] = [Redis(port=port, username="health", password="") for _ in range(12)]
    return {client.execute_command("ROLE")[0] for client in clients} == {b"master"}


def test_it_follows_the_primary(haproxy: Path, tmp_path: Path) -> None:
    with running_cache(tmp_path) as (nodes, _):
        servers = {node.name: node.port for node in nodes}
        with running_proxy(haproxy, tmp_path / "haproxy.cfg", servers) as port:
            service = Redis(port=port, username="identity-service", password=password_of("identity-service-redis"))
            eventually(lambda: leads_to_the_primary_alone(port))
            # The primary refuses writes until a replica follows it.
            assert eventually(lambda: service.set("identity-service:1", "before"))
            nodes[0].stop()
            assert eventually(lambda: service.set("identity-service:1", "after"))
            nodes[0].start()
            eventually(lambda: nodes[0].role == "slave")
            eventually(lambda: leads_to_the_primary_alone(port))
            assert service.get("identity-service:1") == b"after"


def checked(program: Path, file: Path, text: str) -> subprocess.CompletedProcess[str]:
    file.write_text(text)
    return subprocess.run([program, "-c", "-f", str(file)], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("key", sorted({line.split()[0] for line in RENDERED.splitlines() if line.startswith("  ")}))
def test_it_takes_the_rendered_file_and_no_misspelt_key(haproxy: Path, tmp_path: Path, key: str) -> None:
    text = on_loopback(free_port(), {name: free_port() for name in NODES})
    whole = checked(haproxy, tmp_path / "haproxy.cfg", text)
    assert (whole.returncode, whole.stderr) == (0, "")
    misspelt = checked(haproxy, tmp_path / "haproxy.cfg", text.replace(f"  {key} ", f"  {key}x "))
    assert misspelt.returncode == 1
    assert f"'{key}x'" in misspelt.stderr
