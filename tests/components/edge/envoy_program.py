"""Runs Envoy with a rendered configuration. Only its addresses and ports are replaced by local ones."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from components.edge.egress_proxy import CONFIGURATION_PATH, FILE_NAME, EgressProxy
from components.edge.envoy import METRICS_PATH, READY_PATH, STATUS_PORT
from tests.cluster.processes import Processes
from tests.loopback import START_SECONDS, free_port

ENVOY = Path(sysconfig.get_path("scripts"), "envoy")


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its log, and the mapping from configured ports to real ports."""

    ports: Mapping[int, int]
    log: Path

    def ask(self, method: str, path: str) -> tuple[int, str]:
        """Status and body of an answer on the status port."""
        connection = HTTPConnection("127.0.0.1", self.ports[STATUS_PORT], timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def statistic(self, text: str) -> int:
        """One value of the metrics that Prometheus reads."""
        _, body = self.ask("GET", METRICS_PATH)
        (value,) = [line.rpartition(" ")[2] for line in body.splitlines() if line.startswith(f"{text} ")]
        return int(value)


def rendered(proxy: EgressProxy) -> str:
    """The configuration that the proxy mounts."""
    (text,) = (str(found["data"][FILE_NAME]) for found in proxy.resources() if found["kind"] == "ConfigMap")
    return text


def validated(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Envoy's verdict on a configuration."""
    path = folder / FILE_NAME
    path.write_text(text)
    command = [str(ENVOY), "--mode", "validate", "--config-path", str(path), "--disable-hot-restart", "-l", "warning"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def on_loopback(bootstrap: dict[str, Any], hosts: Mapping[str, int]) -> dict[int, int]:
    """Replace every address in `bootstrap` by a loopback address. Returns configured port → real port."""
    ports: dict[int, int] = {}
    static = bootstrap["static_resources"]
    for place in (bootstrap["admin"], *static["listeners"]):
        declared = place["address"]["socket_address"]
        ports[declared["port_value"]] = free_port()
        declared |= {"address": "127.0.0.1", "port_value": ports[declared["port_value"]]}
    for cluster in static["clusters"]:
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        declared = endpoint["address"]["socket_address"]
        outside = hosts.get(declared["address"])
        declared |= {"address": "127.0.0.1", "port_value": outside or ports[declared["port_value"]]}
    return ports


@contextmanager
def running(text: str, arguments: list[str], hosts: Mapping[str, int], folder: Path) -> Iterator[Proxy]:
    """Run Envoy with the configuration `text` and the container's `arguments`. `hosts` maps each host to its port."""
    folder.mkdir()
    bootstrap = json.loads(text)
    ports = on_loopback(bootstrap, hosts)
    path = folder / FILE_NAME
    path.write_text(json.dumps(bootstrap))
    local = [argument.replace(CONFIGURATION_PATH, str(folder)) for argument in arguments]
    proxy = Proxy(ports, folder / "envoy.log")
    with Processes(folder) as processes:
        processes.start(ENVOY, *local)
        processes.wait_until(lambda: _is_ready(proxy), "the proxy", START_SECONDS)
        yield proxy


def _is_ready(proxy: Proxy) -> bool:
    try:
        return proxy.ask("GET", READY_PATH)[0] == HTTPStatus.OK
    except OSError:
        return False
