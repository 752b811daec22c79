from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from voice_policies import Bytes

from tests.integration.cache_clients import replicated, running_proxy, service, writing
from tests.platforms import of_kind
from tests.stack.voiceassistant.tiers.real_cache import Member, eventually, running_cache

pytestmark = pytest.mark.integration
VALUE = Bytes("1Mi")
DATA = Bytes("512Mi")


def killed(node: Member) -> None:
    node.stop()


def killed_and_restarted_immediately(node: Member) -> None:
    """Kill and restart, as when the kernel kills the process for lack of memory and kubelet restarts the container."""
    node.stop()
    node.restart()


@pytest.mark.parametrize("end", [killed, killed_and_restarted_immediately])
def test_a_killed_primary_loses_only_writes_that_no_replica_had(
    haproxy: Path, tmp_path: Path, end: Callable[[Member], None]
) -> None:
    with running_cache(tmp_path) as (nodes, _), running_proxy(haproxy, tmp_path / "haproxy.cfg", nodes) as port:
        with writing(port) as writer:
            moment = time.monotonic()
            end(nodes[0])
            eventually(lambda: [node for node in nodes[1:] if node.role == "master"])
            elected = time.monotonic()
            eventually(lambda: writer.written_after(elected))
        assert replicated(writer.lost(), moment, elected) == {}


def test_an_orderly_stop_of_the_primary_hands_over_and_loses_no_write(haproxy: Path, tmp_path: Path) -> None:
    with running_cache(tmp_path) as (nodes, _), running_proxy(haproxy, tmp_path / "haproxy.cfg", nodes) as port:
        with writing(port) as writer:
            nodes[0].stop_in_order()
            assert [node.role for node in nodes[1:]].count("master") == 1, (
                "another server must become primary before this one stops"
            )
            eventually(lambda: writer.written_after(time.monotonic() - 1))
            nodes[0].start()
            eventually(lambda: nodes[0].role == "slave")
            restarted = time.monotonic()
            eventually(lambda: writer.written_after(restarted))
        assert writer.lost() == {}


def test_a_first_start_elects_the_first_server(tmp_path: Path) -> None:
    with running_cache(tmp_path) as (nodes, _):
        assert [node.role for node in nodes] == ["master", "slave", "slave"]


def test_a_synchronisation_of_512_mib_fits_the_volume_even_if_the_first_attempt_was_interrupted(
    haproxy: Path, tmp_path: Path
) -> None:
    limit = data_volume()
    with (
        running_cache(tmp_path, "repl-diskless-sync-delay 0") as (nodes, _),
        running_proxy(haproxy, tmp_path / "haproxy.cfg", nodes) as port,
    ):
        replica, data = nodes[2], nodes[2].place.inside("/data")
        replica.stop()
        fill(port)
        with peak_of(data) as sizes:
            replica.start()
            eventually(lambda: any(data.iterdir()))
            replica.stop()
            left = [file.name for file in data.iterdir()]
            replica.restart()
            eventually(lambda: has_all(replica, port))
        assert left, "the killed replica must leave a part of the dump behind"
        assert not [file for file in data.iterdir() if file.name in left]
        assert 0 < max(sizes) <= limit.units, f"{max(sizes) / 2**20:.0f} MiB"
        nodes[0].stop()
        eventually(lambda: [node for node in nodes[1:] if node.role == "master"])
        eventually(lambda: service(port).dbsize() >= DATA / VALUE)


def data_volume() -> Bytes:
    (found,) = (each for each in of_kind("prod", "StatefulSet") if each["metadata"]["name"] == "redis-node")
    volumes = {volume["name"]: volume for volume in found["spec"]["template"]["spec"]["volumes"]}
    return Bytes(volumes["data"]["emptyDir"]["sizeLimit"])


def fill(port: int) -> None:
    client = service(port)
    for number in range(round(DATA / VALUE)):
        client.set(f"identity-service:{number}", os.urandom(VALUE.units))


def has_all(replica: Member, port: int) -> bool:
    sizes: list[int] = [service(each).dbsize() for each in (replica.port, port)]
    return replica.ask("ROLE")[3] == "connected" and sizes[0] == sizes[1]


class peak_of:  # noqa: N801 - a context manager that is used like a function
    def __init__(self, directory: Path) -> None:
        self._directory, self._sizes, self._end = directory, [0], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._sizes

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.02):
            self._sizes.append(sum(_size(file) for file in self._directory.iterdir()))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
