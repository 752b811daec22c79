"""A replicated cache: a primary, replicas, Sentinels that elect the primary, and proxies in front of the primary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field
from typing_extensions import override
from voice_policies import Duration

from components.component import PLAIN_TEXT, Exemption
from components.container import POD_NAME, Container, Image
from components.node import Replicas, Sizing
from components.operation import Name
from components.priority import Priority
from components.probes import READY, Probe, Probes
from components.scrape import BlackboxModule, Scrape
from components.secret_keys import SecretKeys
from components.server import Server, Workload
from components.services import tcp
from components.valkey.access import CONFIG_PATH, RUN_PATH, WRITE_ACL, AclUser, user_file
from components.valkey.proxy import proxy_configuration
from components.valkey.replication import (
    FOLLOWS,
    HANDOVER,
    KNOWS_QUORUM,
    REPLICATION,
    REPLICATION_RULES,
    SECRET,
    SENTINEL_PORT,
    SENTINEL_RULES,
    Members,
    configure_node,
    configure_sentinel,
    start_node,
    stop_node,
)
from components.valkey.server import (
    CONFIGURATION,
    DATA_PATH,
    PING,
    PORT,
    PROBES,
    SCRAPE,
    SHUTDOWN,
    data_size,
    server_configuration,
)
from components.volumes import ConfigFiles, Scratch
from components.workloads import DATA_VOLUME, Deployment, StatefulSet
from components.writes import Write

if TYPE_CHECKING:
    from components.kubernetes.types import ServiceSpec

__all__ = ["ReplicatedValkey"]

PROXY_SIZING = Sizing.of(cpu=("100m", "500m"), memory=("64Mi", "128Mi"))
SENTINEL_SIZING = Sizing.of(cpu=("50m", "200m"), memory=("64Mi", "128Mi"))
PROXIES = 2
CONNECTS = Probes.tcp(readiness=Probe.tcp("tcp", **READY), port="tcp", startup=Duration("60s"))
"""Probes of proxies and Sentinels. A proxy is ready when its port is open. Sentinels have another readiness probe."""


class ReplicatedValkey(Server):
    """A replicated cache.

    Callers connect to the proxies. Each pod has its own Service, so that the name of a lost pod still resolves.
    Replication is asynchronous, so a failover may lose the last writes. A primary refuses writes when no replica has
    answered for 10 s (Valkey's default of `min-replicas-max-lag`). So if a network partition isolates a
    primary, the primary soon stops accepting writes.
    """

    folder: ClassVar[str] = "20-data"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        PLAIN_TEXT,
        Exemption(rule="headless_service", reason="each pod has its own Service, whose name Sentinel stores"),
        Exemption(
            rule="own_readiness", reason="HAProxy shows its health only by its open port, for liveness and readiness"
        ),
    )
    scrape: ClassVar[Scrape] = SCRAPE
    """The scrape of proxies and servers."""
    sentinel_scrape: ClassVar[Scrape] = Scrape.probe(
        BlackboxModule(name="sentinel", prober="tcp", settings={"query_response": [*PING]}), SENTINEL_PORT
    )
    proxy_image: Image
    users: tuple[AclUser, ...]
    nodes: Annotated[int, Field(ge=2, le=7)] = 3
    sentinels: Annotated[int, Field(ge=1, le=7)] = 3
    quorum: Annotated[int, Field(ge=1, le=7)] = 2
    """Number of Sentinels that must agree that the primary is down."""

    @override
    def conflicts(self) -> Iterator[str]:
        if self.sentinels < 3 or self.sentinels % 2 == 0:
            yield (
                f"sentinels is {self.sentinels}: expected an odd number, at least 3, "
                "so that a majority survives the loss of a Sentinel"
            )
        if not self.sentinels // 2 < self.quorum <= self.sentinels:
            yield (
                f"quorum is {self.quorum}: expected {self.sentinels // 2 + 1} to {self.sentinels}, "
                f"a majority of the {self.sentinels} sentinels"
            )

    def named(self, part: str) -> Name:
        """The name of one part, such as the Sentinels."""
        return f"{self.name}-{part}"

    @property
    def members(self) -> Members:
        """The names of the servers and Sentinels."""
        return Members(
            nodes=tuple(f"{self.named('node')}-{index}" for index in range(self.nodes)),
            sentinels=tuple(f"{self.named('sentinel')}-{index}" for index in range(self.sentinels)),
            domain=f"{self.namespace}.svc.cluster.local",
        )

    @property
    def node_files(self) -> dict[str, str]:
        """The files of the servers, as mounted."""
        everyone = (
            *self.users,
            AclUser(name="replication", secret=SECRET, rules=REPLICATION_RULES),
            AclUser(name="sentinel", secret=SECRET, rules=SENTINEL_RULES),
        )
        return {
            "valkey.conf": server_configuration(self.sizing, durable=False) + REPLICATION,
            "users.acl": user_file(everyone),
            "configure.sh": WRITE_ACL + configure_node(),
            "start.sh": start_node(self.members),
            "stop.sh": stop_node(self.members),
        }

    @override
    def workloads(self) -> Iterator[Workload]:
        """The proxies, then servers and Sentinels."""
        yield self._proxies()
        yield self._servers()
        yield self._sentinels()

    def _servers(self) -> StatefulSet:
        """The servers. A replica is ready only with the primary's data, so a rollout waits for the synchronisation."""
        dump = data_size(self.sizing)
        members = self._members(
            "node",
            self.nodes,
            self.node_files,
            (SECRET, *(user.secret for user in self.users)),
            Container(
                name="valkey",
                command=("sh", f"{CONFIG_PATH}/start.sh"),
                before_stop=("sh", f"{CONFIG_PATH}/stop.sh"),
                ports={"tcp": PORT},
                env={"POD_NAME": POD_NAME},
                mounts={"config": CONFIG_PATH, "run": RUN_PATH, DATA_VOLUME: DATA_PATH},
                probes=PROBES.model_copy(update={"readiness": Probe.exec("sh", "-c", FOLLOWS, **READY)}),
            ),
        )
        received = Write(DATA_VOLUME, dump, "the dump that a full synchronisation receives")
        return replace(
            members,
            volumes={**members.volumes, DATA_VOLUME: Scratch(dump)},
            writes=(*members.writes, received),
            pre_stop=HANDOVER,
        )

    def _sentinels(self) -> StatefulSet:
        """The Sentinels. A Sentinel is ready only if enough Sentinels answer for the quorum and for a majority."""
        return self._members(
            "sentinel",
            self.sentinels,
            {"configure.sh": configure_sentinel(self.members, self.quorum)},
            (SECRET,),
            Container(
                name="sentinel",
                sizing=SENTINEL_SIZING,
                command=("valkey-sentinel", f"{RUN_PATH}/sentinel.conf"),
                ports={"tcp": SENTINEL_PORT},
                mounts={"run": RUN_PATH},
                probes=CONNECTS.model_copy(update={"readiness": Probe.exec(*KNOWS_QUORUM, **READY)}),
            ),
        )

    def _proxies(self) -> Deployment:
        return Deployment(
            name=self.name,
            container=Container(
                name="haproxy",
                image=self.proxy_image,
                sizing=PROXY_SIZING,
                command=("haproxy", "-W", "-db", "-f", f"{CONFIG_PATH}/haproxy.cfg"),
                ports={"tcp": PORT},
                mounts={"config": CONFIG_PATH},
                probes=CONNECTS,
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", {"haproxy.cfg": proxy_configuration(self.members)})},
            replicas=Replicas.exactly(PROXIES),
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )

    def _members(
        self, part: str, count: int, files: Mapping[str, str], secrets: tuple[SecretKeys, ...], container: Container
    ) -> StatefulSet:
        return StatefulSet(
            name=self.named(part),
            account=self.name,
            init=Container(
                name="configure",
                sizing=SENTINEL_SIZING,
                command=("sh", f"{CONFIG_PATH}/configure.sh"),
                env={"POD_NAME": POD_NAME},
                mounts={"config": CONFIG_PATH, "run": RUN_PATH},
                secrets=secrets,
            ),
            container=container,
            volumes={"config": ConfigFiles(f"{self.named(part)}-config", files), "run": Scratch()},
            writes=(Write("run", CONFIGURATION, "configuration and users"),),
            replicas=count,
            quorum=True,
            shutdown=SHUTDOWN,
            services=dict(self._addresses(part, count, container.ports["tcp"])),
        )

    def _addresses(self, part: str, count: int, port: int) -> Iterator[tuple[str, ServiceSpec]]:
        """A Service for each pod. Through it the other pods find a pod that is not ready yet."""
        for index in range(count):
            name = f"{self.named(part)}-{index}"
            selector = {"statefulset.kubernetes.io/pod-name": name}
            yield name, {**tcp(port), "selector": selector, "publishNotReadyAddresses": True}
