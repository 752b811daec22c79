"""Runs Envoy with a rendered configuration, but with local addresses and ports."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any

from components.edge.egress_proxy import CONFIGURATION_PATH, EgressProxy
from components.edge.envoy import (
    ALLOW_LISTS_PATH,
    CLUSTERS,
    FILE_NAME,
    LISTENERS,
    METRICS_PATH,
    READY_PATH,
    STATUS_PORT,
)
from tests.cluster.processes import Processes
from tests.loopback import START_SECONDS, free_port

ENVOY = Path(sysconfig.get_path("scripts"), "envoy")


Files = Mapping[str, str]
DISCOVERED = {LISTENERS: "listeners", CLUSTERS: "clusters"}
"""The files that Envoy reloads, and their kind of resources."""
_versions = count()


@dataclass(frozen=True)
class Proxy:
    """A running proxy.

    Attributes:
        folder: the folder of its files and of its log.
        hosts: the local port of each external host.
        ports: configured port → port on loopback.
    """

    folder: Path
    hosts: Mapping[str, int]
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "envoy.log"

    def mount(self, files: Files) -> None:
        """Replace the allow-lists as kubelet does: a new directory, then one renamed symbolic link."""
        mounted = self.folder / "allow-lists"
        version = mounted / f"..version_{next(_versions)}"
        version.mkdir(parents=True)
        documents = {name: json.loads(files[name]) for name in DISCOVERED}
        self.move_to_loopback(**{kind: documents[name]["resources"] for name, kind in DISCOVERED.items()})
        for name, document in documents.items():
            (version / name).write_text(json.dumps(document))
            if not (mounted / name).is_symlink():
                (mounted / name).symlink_to(Path("..data") / name)
        (mounted / "..data_tmp").symlink_to(version.name)
        (mounted / "..data_tmp").rename(mounted / "..data")

    def move_to_loopback(self, listeners: Iterable[dict[str, Any]], clusters: Iterable[dict[str, Any]]) -> None:
        for listener in listeners:
            self.listen_on_loopback(listener)
        for cluster in clusters:
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            declared = endpoint["address"]["socket_address"]
            outside = self.hosts.get(declared["address"])
            declared |= {"address": "127.0.0.1", "port_value": outside or self.ports[declared["port_value"]]}

    def listen_on_loopback(self, place: dict[str, Any]) -> None:
        declared = place["address"]["socket_address"]
        port = self.ports.setdefault(declared["port_value"], free_port())
        declared |= {"address": "127.0.0.1", "port_value": port}

    def ask(self, method: str, path: str) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.ports[STATUS_PORT], timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def statistic(self, text: str) -> int:
        _, body = self.ask("GET", METRICS_PATH)
        (value,) = [line.rpartition(" ")[2] for line in body.splitlines() if line.startswith(f"{text} ")]
        return int(value)


def rendered(proxy: EgressProxy) -> Files:
    maps = (resource["data"] for resource in proxy.resources() if resource["kind"] == "ConfigMap")
    return {name: text for data in maps for name, text in data.items()}


def static_resources(files: Files) -> dict[str, list[dict[str, Any]]]:
    """Every listener and cluster in the files, in the form of a bootstrap file."""
    static: dict[str, list[dict[str, Any]]] = json.loads(files[FILE_NAME])["static_resources"]
    for name, kind in DISCOVERED.items():
        for resource in json.loads(files[name])["resources"]:
            static[kind].append({key: value for key, value in resource.items() if key != "@type"})
    return static


def validated(files: Files, folder: Path) -> subprocess.CompletedProcess[str]:
    """Envoy validates only static resources, so the allow-lists become static."""
    document = {**json.loads(files[FILE_NAME]), "static_resources": static_resources(files)}
    del document["dynamic_resources"]
    path = folder / FILE_NAME
    path.write_text(json.dumps(document))
    command = [str(ENVOY), "--mode", "validate", "--config-path", str(path), "--disable-hot-restart", "-l", "warning"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@contextmanager
def running(files: Files, arguments: list[str], hosts: Mapping[str, int], folder: Path) -> Iterator[Proxy]:
    proxy = Proxy(folder, hosts)
    bootstrap = json.loads(files[FILE_NAME].replace(ALLOW_LISTS_PATH, str(folder / "allow-lists")))
    proxy.listen_on_loopback(bootstrap["admin"])
    proxy.move_to_loopback(**bootstrap["static_resources"])
    proxy.mount(files)
    (folder / FILE_NAME).write_text(json.dumps(bootstrap))
    local = [argument.replace(CONFIGURATION_PATH, str(folder)) for argument in arguments]
    with Processes(folder) as processes:
        processes.start(ENVOY, *local)
        processes.wait_until(lambda: _is_ready(proxy), "the proxy", START_SECONDS)
        yield proxy


def _is_ready(proxy: Proxy) -> bool:
    try:
        return proxy.ask("GET", READY_PATH)[0] == HTTPStatus.OK
    except OSError:
        return False
