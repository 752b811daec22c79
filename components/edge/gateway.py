"""The entrance: APISIX as a file-driven data plane, without an administration interface or a store of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from voice_policies import Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.edge.apisix import PORTS, TEMPORARY_PATH
from components.mesh.proxy import join_mesh
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.operation import Name
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of
from components.probes import HttpProbes
from components.scrape import Scrape
from components.workload import deployment, pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, Deployment, EnvVar, ObjectMeta, Service, Volume

PREFIX = "/usr/local/apisix"
FILES_PATH = "/etc/apisix"
WRITABLE = {"conf": ("16Mi", f"{PREFIX}/conf"), "logs": ("16Mi", f"{PREFIX}/logs"), "bodies": ("256Mi", TEMPORARY_PATH)}
"""What APISIX writes: the configuration of nginx that it makes, its sockets, and large bodies. Logs go to stdout."""


class ApisixGateway(Component):
    """The gateway with its two files."""

    kind: ClassVar[str] = "Gateway"
    folder: ClassVar[str] = "60-gateway"
    scrape: ClassVar[Scrape] = Scrape(port=PORTS.metrics, path="/apisix/prometheus/metrics", series=10_000)
    """Series: routes × statuses × buckets."""
    image: Image
    sizing: Sizing
    replicas: Replicas
    files: dict[str, str]
    """`config.yaml` and `apisix.yaml`."""
    variables: dict[str, tuple[Name, Name]]
    """Environment variable → the secret and the key that it holds."""
    exposed_as: Literal["LoadBalancer", "NodePort"]
    address: str
    ingress: tuple[NetworkEnd, ...]
    egress: tuple[NetworkEnd, ...]
    longest_request: Duration
    mesh_proxy: Sizing | None = None
    """Size of the mesh's proxy in each pod; `None` where there is no mesh."""

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        reason = "APISIX reads keys and passwords from variables alone; a rotated one arrives with a restart"
        return (Exemption(rule="secrets_as_files", reason=reason),)

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then the Deployment, then what watches over it."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("configuration"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._service()
        yield self._deployment()
        if self.replicas.min > 1:
            yield disruption_budget(self.metadata(), self.selector)

    def _service(self) -> Service:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": self.exposed_as,
                # Otherwise a node that passes a connection on puts its own address in the place of the client's.
                "externalTrafficPolicy": "Local",
                "selector": self.selector,
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "http"},
                    {"name": "https", "port": 443, "targetPort": "https"},
                ],
            },
        }

    def _deployment(self) -> Deployment:
        volumes: list[Volume] = [
            {"name": name, "emptyDir": {"sizeLimit": size}} for name, (size, _) in WRITABLE.items()
        ]
        files: Volume = {"name": "configuration", "configMap": {"name": f"{self.name}-configuration"}}
        pod = pod_spec(self.name, self._container(), [files, *volumes], self.selector, self.longest_request)
        pod["initContainers"] = [self._copy()]
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        template: ObjectMeta = {"labels": self.labels, "annotations": annotations}
        if self.mesh_proxy:
            # Its callers are browsers and apps, which are no members: what comes in goes past the proxy.
            join_mesh(template, self.mesh_proxy, inbound=False)
        return deployment(self.metadata(), template, self.selector, pod, self.replicas)

    def _copy(self) -> Container:
        """The image's own files and ours, where APISIX can write beside them: its root is read-only."""
        container = hardened_container("configuration", self.image, self.sizing)
        container["command"] = ["sh", "-ec", f"cp -r {PREFIX}/conf/. /conf && cp {FILES_PATH}/*.yaml /conf"]
        container["volumeMounts"] += [
            {"name": "configuration", "mountPath": FILES_PATH, "readOnly": True},
            {"name": "conf", "mountPath": "/conf"},
        ]
        return container

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        secrets: list[EnvVar] = [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for name, (secret, key) in self.variables.items()
        ]
        container["env"] = [{"name": "APISIX_STAND_ALONE", "value": "true"}, *secrets]
        container["ports"] = [{"name": name, "containerPort": port} for name, port in PORTS.model_dump().items()]
        container["volumeMounts"] += [{"name": name, "mountPath": path} for name, (_, path) in WRITABLE.items()]
        container["lifecycle"] = pre_stop()
        HttpProbes(port="status", liveness_path="/status", readiness_path="/status/ready").onto(container)
        return container
