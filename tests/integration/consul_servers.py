"""Starts Consul with the rendered files of its servers, with other addresses, ports, paths and secrets.

A test may make further `changes`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from components.consul.access import METRICS, SECRET
from components.consul.servers import CONFIG_PATH, DATA_PATH, HTTP_PORT, RPC_PORT, RUN_PATH, SERVICES_PATH
from tests.loopback import START_SECONDS, free_port
from tests.platforms import of_kind
from tests.programs import directory
from tests.stack.voiceassistant.tiers.real_servers import Place, files

PATHS = (CONFIG_PATH, SERVICES_PATH, RUN_PATH, DATA_PATH, SECRET.path, METRICS.path)


def new_gossip_key() -> str:
    """A key in the format of `consul keygen`."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Keys:
    """The values of the servers' two secrets."""

    gossip: str = field(default_factory=new_gossip_key)
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    registration: str = field(default_factory=lambda: str(uuid.uuid4()))
    metrics: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Server:
    program: Path
    environment: str
    place: Place
    address: str
    ports: dict[str, int]
    joined: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.ports['http']}"

    @property
    def log(self) -> str:
        return (self.place.root / "log").read_text(errors="replace")

    def prepare(self, keys: Keys, **changes: object) -> None:
        """Write the mounted files and run the init container's script. `changes` are top-level keys of consul.json."""
        rendered = files(self.environment, "consul-config")
        configuration = json.loads(rendered["consul.json"])
        configuration["ports"].update(self.ports)
        configuration |= {"retry_join": self.joined, "client_addr": self.address, **changes}
        self.place.write(f"{CONFIG_PATH}/consul.json", json.dumps(configuration))
        self.place.write(f"{CONFIG_PATH}/write-secrets.sh", rendered["write-secrets.sh"])
        self.mount_services(files(self.environment, "consul-services"))
        for key, value in zip(SECRET.keys, (keys.gossip, keys.token, keys.registration), strict=True):
            self.place.write(f"{SECRET.path}/{key}", value)
        self.place.write(f"{METRICS.path}/token", keys.metrics)
        subprocess.run(["/bin/sh", str(self.place.inside(f"{CONFIG_PATH}/write-secrets.sh"))], check=True)

    def mount_services(self, rendered: Mapping[str, str]) -> None:
        """Mount files as kubelet does: each file is a link through `..data`, and a rename changes `..data`."""
        folder = self.place.inside(SERVICES_PATH)
        version = f"..{uuid.uuid4()}"
        for name, text in rendered.items():
            self.place.write(f"{SERVICES_PATH}/{version}/{name}", text)
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        (folder / "..data_tmp").symlink_to(version)
        (folder / "..data_tmp").replace(folder / "..data")

    def permit(self) -> None:
        """Run `permit.sh`, which an operator runs in the container."""
        variables = {"CONSUL_HTTP_ADDR": self.url, "PATH": f"{self.program.parent}:{os.environ['PATH']}"}
        script = self.place.inside(f"{SERVICES_PATH}/permit.sh")
        subprocess.run(["/bin/sh", str(script)], check=True, capture_output=True, env=variables)

    def start(self) -> None:
        variables = {"$(POD_IP)": self.address, "$(POD_NAME)": f"consul-{self.address.rpartition('.')[2]}"}
        command = [self.place.moved(word) for word in container(self.environment)["command"][1:]]
        for name, value in variables.items():
            command = [word.replace(name, value) for word in command]
        with (self.place.root / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, *command], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )

    def ready(self) -> bool:
        *shell, line = container(self.environment)["readinessProbe"]["exec"]["command"]
        line = line.replace(f"127.0.0.1:{HTTP_PORT}", f"{self.address}:{self.ports['http']}")
        probe = [*shell, line.replace(f":{RPC_PORT}", f":{self.ports['server']}")]
        pod = {"POD_IP": self.address, "PATH": os.environ["PATH"]}
        return subprocess.run(probe, check=False, capture_output=True, env=pod).returncode == 0

    def knows(self, token: str) -> bool:
        return self.ask("acl/token/self", token)[0] == HTTPStatus.OK

    def ask(self, path: str, token: str = "", body: object = None, method: str = "") -> tuple[int, Any]:
        """Status and answer of the HTTP interface."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
        request = Request(f"{self.url}/v1/{path}", data=data, method=method or ("PUT" if data else "GET"))  # noqa: S310 - loopback
        if token:
            request.add_header("X-Consul-Token", token)
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310 - loopback
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except HTTPError as refused:
            return refused.code, refused.read().decode()

    def stop(self) -> None:
        """Kill the server. This imitates the loss of its node."""
        if self.process:
            self.process.kill()
            self.process.wait()


def container(environment: str) -> dict[str, Any]:
    (found,) = (each for each in of_kind(environment, "StatefulSet") if each["metadata"]["name"] == "consul")
    (server,) = found["spec"]["template"]["spec"]["containers"]
    rendered: dict[str, Any] = server
    return rendered


def wait_until(condition: Callable[[], bool], server: Server) -> None:
    """Wait for a condition. Raises `AssertionError` with the end of the log if the time is over or the server ended."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        ended = server.process is not None and server.process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise AssertionError("\n".join(server.log.splitlines()[-20:]))
        time.sleep(0.1)


@contextmanager
def prepared_servers(program: Path, environment: str, count: int) -> Iterator[list[Server]]:
    """Servers that are not started yet."""
    ports = {"http": free_port(), "server": free_port(), "serf_lan": free_port()}
    addresses = [f"127.0.0.{number}" for number in range(1, count + 1)]
    joined = [f"{address}:{ports['serf_lan']}" for address in addresses]
    with directory() as root:
        servers = [
            Server(program, environment, Place(root / address, PATHS), address, ports, joined) for address in addresses
        ]
        try:
            yield servers
        finally:
            for server in servers:
                server.stop()


@contextmanager
def running_servers(
    program: Path, environment: str, count: int, keys: Keys, **changes: object
) -> Iterator[list[Server]]:
    """Servers that have elected a leader, and accept the management token.

    The leader stores the token after its election.
    """
    with prepared_servers(program, environment, count) as servers:
        for server in servers:
            server.prepare(keys, **changes)
            server.start()
        for server in servers:
            wait_until(server.ready, server)
            wait_until(partial(server.knows, keys.token), server)
        yield servers
