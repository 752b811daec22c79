"""One Valkey server: dev's cache, and everywhere the durable store of event streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import Bytes, Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Sizing
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of
from components.scrape import BlackboxModule, Scrape
from components.stateful_set import (
    DATA_VOLUME,
    configuration_writer,
    mount,
    scratch,
    stateful_set,
    tcp_service,
    with_volumes,
)
from components.valkey.access import ACL_FILE, CONFIG_PATH, HEALTH_USER, RUN_PATH, WRITE_ACL, AclUser, user_file
from components.workload import pod_spec, pre_stop, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Probe, Volume

PORT = 6379
MEMORY_SHARE = 0.6
"""Of the memory limit, for data: a rewrite of the log or a full synchronisation copies what changes meanwhile."""
STOP = Duration("30s")
"""Longest time to write what is left and stop."""
PING = ({"send": "PING"}, {"expect": r"^\+PONG"})
LOGIN = ({"send": f"AUTH {HEALTH_USER} -"}, {"expect": r"^\+OK"})
"""Each `query_response` of the blackbox exporter waits for its `expect`, then says its `send`."""
SCRAPE = Scrape.probe(BlackboxModule(name="valkey", prober="tcp", settings={"query_response": [*LOGIN, *PING]}), PORT)


class Valkey(Component):
    """One server. With `storage` it is durable: each write is on disk before it is acknowledged, nothing is evicted.

    One node and not a replicated pair: replication is asynchronous, so a failover would lose acknowledged events. While
    the node moves, publishers keep their rows in the outbox. Without `storage` it is a cache that may be lost at any
    time.
    """

    kind: ClassVar[str] = "Valkey"
    folder: ClassVar[str] = "20-data"
    scrape: ClassVar[Scrape] = SCRAPE
    image: Image
    sizing: Sizing
    users: tuple[AclUser, ...]
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    storage: Bytes | None = None

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (
            Exemption(rule="headless_service", reason="one pod, reached by its Service: nobody needs its own name"),
        )

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then the server."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        volumes: list[Volume] = [
            {"name": "config", "configMap": {"name": f"{self.name}-config"}},
            scratch("run"),
            *secret_volumes(self.secrets),
        ]
        if self.storage is None:
            volumes.append(scratch(DATA_VOLUME))
        pod = pod_spec(self.name, self._container(), volumes, self.selector, STOP)
        pod["initContainers"] = [write_acl(self.image, self.sizing, self)]
        server = stateful_set(
            self.metadata(),
            self.selector,
            {
                "metadata": {
                    "labels": self.labels,
                    "annotations": {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)},
                },
                "spec": pod,
            },
        )
        if self.storage is None:
            yield server
        else:
            yield from with_volumes(server, self.storage)

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        return {
            "valkey.conf": server_configuration(self.sizing, durable=self.storage is not None),
            "users.acl": user_file(self.users),
            "write-acl.sh": WRITE_ACL,
        }

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["command"] = ["valkey-server", f"{CONFIG_PATH}/valkey.conf"]
        container["ports"] = [{"name": "tcp", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        mount(container, "run", RUN_PATH)
        mount(container, DATA_VOLUME, "/data")
        probes_onto(container)
        return container


def server_configuration(sizing: Sizing, *, durable: bool) -> str:
    """`valkey.conf`. Snapshots are off: a cache needs none, and the log of a durable server holds every write."""
    lines = [
        f"port {PORT}",
        "bind * -::*",
        "protected-mode no",
        f"aclfile {ACL_FILE}",
        "dir /data",
        'save ""',
        f"maxmemory {int(sizing.memory_limit.units * MEMORY_SHARE)}",
        f"maxmemory-policy {'noeviction' if durable else 'allkeys-lru'}",
        *(["appendonly yes", "appendfsync always"] if durable else ["appendonly no"]),
        "tcp-keepalive 60",
    ]
    return "".join(f"{line}\n" for line in lines)


def write_acl(image: Image, sizing: Sizing, component: Component) -> Container:
    """Runs before the server: hashes of the mounted passwords into the user file. The server never sees a password."""
    writer = hardened_container("write-acl", image, sizing)
    return configuration_writer(writer, CONFIG_PATH, RUN_PATH, component.secrets)


def probes_onto(container: Container) -> None:
    """Ready when it answers, which it does not while it loads its log; alive while the port opens."""
    ping: Probe = {
        "exec": {"command": ["valkey-cli", "-e", "--user", HEALTH_USER, "--pass", "", "--no-auth-warning", "ping"]},
        "periodSeconds": 5,
        "timeoutSeconds": 3,
    }
    container["startupProbe"] = {**ping, "periodSeconds": 2, "timeoutSeconds": 1, "failureThreshold": 150}
    container["readinessProbe"] = {**ping, "failureThreshold": 3}
    container["livenessProbe"] = {
        "tcpSocket": {"port": "tcp"},
        "periodSeconds": 10,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    }
    container["lifecycle"] = pre_stop()
