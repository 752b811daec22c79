from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.cache_clients import (
    RENDERED,
    leads_to_the_primary_alone,
    on_loopback,
    running_proxy,
    service,
)
from tests.loopback import free_port
from tests.redis_servers import Server
from tests.stack.voiceassistant.tiers.real_cache import NODES, eventually, running_cache

pytestmark = pytest.mark.integration


def test_haproxy_forwards_only_to_the_new_primary_even_after_the_old_primary_returns(
    haproxy: Path, tmp_path: Path
) -> None:
    with running_cache(tmp_path) as (nodes, _), running_proxy(haproxy, tmp_path / "haproxy.cfg", nodes) as port:
        assert eventually(lambda: service(port).set("identity-service:1", "before"))
        nodes[0].stop()
        assert eventually(lambda: service(port).set("identity-service:1", "after"))
        nodes[0].start()
        eventually(lambda: nodes[0].role == "slave")
        eventually(lambda: leads_to_the_primary_alone(port))
        assert service(port).get("identity-service:1") == "after"


def test_haproxy_starts_while_no_name_resolves(haproxy: Path, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(on_loopback(port, {}))
    process = subprocess.Popen([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(port))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_haproxy_recognizes_a_replica_if_the_name_of_its_primary_contains_master(haproxy: Path, tmp_path: Path) -> None:
    health = ("--user", "health", "on", "nopass", "+@all")
    with ExitStack() as stack:
        primary = stack.enter_context(server(tmp_path, *health))
        replica = stack.enter_context(server(tmp_path, *health, "--replicaof", "webmaster-cache", "6379"))
        port = free_port()
        text = on_loopback(port, {NODES[0]: replica.port, NODES[1]: primary.port, NODES[2]: free_port()})
        (tmp_path / "haproxy.cfg").write_text(text)
        process = subprocess.Popen([haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")], stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        eventually(lambda: leads_to_the_primary_alone(port))


@contextmanager
def server(directory: Path, *options: str) -> Iterator[Server]:
    started = Server(directory, "--save", "", *options)
    try:
        yield started
    finally:
        started.kill()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def checked(program: Path, file: Path, text: str) -> subprocess.CompletedProcess[str]:
    file.write_text(text)
    return subprocess.run([program, "-c", "-f", str(file)], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("key", sorted({line.split()[0] for line in RENDERED.splitlines() if line.startswith("  ")}))
def test_haproxy_accepts_the_rendered_file_and_refuses_a_misspelt_key(haproxy: Path, tmp_path: Path, key: str) -> None:
    text = on_loopback(free_port(), {name: free_port() for name in NODES})
    whole = checked(haproxy, tmp_path / "haproxy.cfg", text)
    assert (whole.returncode, whole.stderr) == (0, "")
    misspelt = checked(haproxy, tmp_path / "haproxy.cfg", re.sub(rf"^  {key}\b", f"  {key}x", text, flags=re.MULTILINE))
    assert misspelt.returncode == 1
    assert f"'{key}x'" in misspelt.stderr
