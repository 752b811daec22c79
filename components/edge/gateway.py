"""The gateway: APISIX in standalone mode, without an admin interface or a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from typing_extensions import override
from voice_policies import Bytes, Duration

from components.component import Exemption
from components.container import Container
from components.edge.apisix import PORTS, TEMPORARY_PATH
from components.mesh.proxy import mesh_member
from components.node import Replicas, Sizing
from components.operation import Name
from components.priority import Priority
from components.probes import Probes
from components.scrape import Scrape
from components.secret_keys import SecretKeys, merged
from components.server import Server
from components.services import to_port
from components.volumes import ConfigFiles, Scratch
from components.workloads import Deployment
from components.writes import Write

if TYPE_CHECKING:
    from components.kubernetes.types import EnvVarSource, ServiceSpec

__all__ = ["ApisixGateway"]

PREFIX = "/usr/local/apisix"
FILES_PATH = "/etc/apisix"
WRITABLE = {
    "conf": (Scratch(Bytes("16Mi")), f"{PREFIX}/conf"),
    "logs": (Scratch(Bytes("16Mi")), f"{PREFIX}/logs"),
}
"""Volumes for nginx's configuration and sockets. Logs go to stdout. Large bodies have a separate volume."""


class ApisixGateway(Server):
    """The gateway and its configuration files."""

    kind: ClassVar[str] = "Gateway"
    folder: ClassVar[str] = "60-gateway"
    priority: ClassVar[Priority] = "foundation"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(
            rule="secrets_as_files",
            reason="APISIX reads keys and passwords from environment variables only; a rotated value needs a restart",
        ),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORTS.metrics, path="/apisix/prometheus/metrics", series=10_000)
    """The number of series is routes × statuses × buckets."""
    replicas: Replicas
    files: dict[str, str]
    """`config.yaml` and `apisix.yaml`."""
    variables: dict[str, tuple[SecretKeys, Name]]
    """Environment variable → the secret and its key that hold the value."""
    exposed_as: Literal["LoadBalancer", "NodePort"]
    address: str
    ingress_grace: Duration
    """Longest time in which new connections still arrive after the gateway has begun to stop."""
    longest_request: Duration
    bodies: Bytes
    """Largest size on disk of all request bodies of one replica at one time."""
    mesh_proxy: Sizing | None = None
    """Size of the mesh's proxy in each pod. `None` without a mesh."""

    @property
    @override
    def secrets(self) -> tuple[SecretKeys, ...]:
        return merged(secret for secret, _ in self.variables.values())

    @override
    def workloads(self) -> Iterator[Deployment]:
        """The gateway.

        An init container copies the files to a writable directory, because the root file system is read-only.
        """
        secrets: dict[str, EnvVarSource] = {
            name: {"secretKeyRef": {"name": secret.name, "key": key}} for name, (secret, key) in self.variables.items()
        }
        yield Deployment(
            name=self.name,
            init=Container(
                name="configuration",
                command=("sh", "-ec", f"cp -r {PREFIX}/conf/. /conf && cp {FILES_PATH}/*.yaml /conf"),
                mounts={"configuration": FILES_PATH, "conf": "/conf"},
            ),
            container=Container(
                ports=PORTS.model_dump(),
                env={"APISIX_STAND_ALONE": "true", **secrets},
                mounts={"bodies": TEMPORARY_PATH, **{name: path for name, (_, path) in WRITABLE.items()}},
                probes=Probes.http("/status", "/status/ready", port="status"),
            ),
            volumes={
                "configuration": ConfigFiles(f"{self.name}-configuration", self.files),
                **{name: scratch for name, (scratch, _) in WRITABLE.items()},
                "bodies": Scratch(self.bodies),
            },
            writes=(
                Write("conf", Bytes("4Mi"), "the image's files and the rendered files"),
                Write("logs", Bytes("1Mi"), "sockets; the logs go to stdout"),
                Write("bodies", self.bodies, "bodies of the requests that limit-conn admits"),
            ),
            replicas=self.replicas,
            pre_stop=self.ingress_grace,
            shutdown=self.longest_request,
            services={self.name: self._entrance()},
            # Browsers and apps are not members of the mesh, so incoming connections bypass the mesh's proxy.
            pod_metadata=mesh_member(self.mesh_proxy, inbound=False),
        )

    def _entrance(self) -> ServiceSpec:
        return {
            "type": self.exposed_as,
            # With the policy `Cluster`, a node that forwards a connection replaces the client's address with its own.
            "externalTrafficPolicy": "Local",
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [to_port("http", 80), to_port("https", 443)],
        }
