"""One of our services as Kubernetes resources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from voice_policies import FILE_NAME, SETTINGS_FILE_NAME, Duration, PolicyBundle, ServiceSettings

from components.access import TOKEN_PATH, TOKEN_VOLUME, ApiAccess, role_and_binding, service_account, token_volume
from components.autoscaling import autoscaler
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.disruption_budget import disruption_budget
from components.grpc_service_config import GRPC_FILE_NAME, grpc_channels
from components.mesh.proxy import join_mesh
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Service, Sizing
from components.policy_config import (
    DIGEST_ANNOTATION,
    config_files,
    config_map,
    file_text,
)
from components.probes import HttpProbes
from components.workload import deployment, pod_spec, pre_stop, secret_mounts, secret_volumes

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import (
        Container,
        Deployment,
        ObjectMeta,
        Volume,
        VolumeMount,
    )
    from components.kubernetes.types import Service as KubernetesService

POLICY_PATH = "/etc/voice/policy"
SETTINGS_PATH = "/etc/voice/settings"


class Microservice(Component):
    """A service of the catalogue in one environment, with everything the platform decided about it."""

    kind: ClassVar[str] = "Microservice"
    folder: ClassVar[str] = "50-services"
    service: Service
    image: Image
    sizing: Sizing
    replicas: Replicas
    bundle: PolicyBundle
    settings: ServiceSettings
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()
    probes: HttpProbes = HttpProbes()
    longest_request: Duration
    """The longest deadline of its operations: how long a shutdown may have to wait."""
    restart_on_policy_change: bool = False
    """Puts the bundle's digest on the pod template, so that a changed policy rolls the pods instead of reloading."""
    api_access: ApiAccess | None = None
    mesh_proxy: Sizing | None = None
    """Size of the mesh's proxy in each pod; `None` where there is no mesh."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels on everything of this service."""
        return {**super().labels, "app.kubernetes.io/component": self.service.tier}

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (Exemption(rule="no_api_token", reason=self.api_access.reason),) if self.api_access else ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        if self.bundle.metadata.service != self.name:
            yield f"bundle of {self.bundle.metadata.service} cannot be mounted into {self.name}"
        if self.bundle.metadata.digest is None:
            yield "bundle must be sealed: its digest is missing"

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then the Deployment, then what watches over it."""
        yield service_account(self.metadata())
        if self.api_access:
            yield from role_and_binding(self.metadata(), self.api_access)
        yield self._policy_config_map()
        yield config_map(
            self.metadata("settings"),
            SETTINGS_FILE_NAME,
            file_text(self.settings.model_dump(mode="json", exclude_none=True)),
        )
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield self._http_service()
        yield self._grpc_service()
        yield self._deployment()
        if not self.replicas.fixed:
            yield autoscaler(self.metadata(), self.replicas, on_memory=self.service.sizing.memory_dominates)
        if self.replicas.min > 1:
            yield disruption_budget(self.metadata(), self.selector)

    @property
    def digest(self) -> str:
        """Digest of the bundle it mounts."""
        return self.bundle.metadata.digest or ""

    def _policy_config_map(self) -> Resource:
        files = {FILE_NAME: file_text(self.bundle.to_document())}
        if channels := grpc_channels(self.bundle.outbound):
            files[GRPC_FILE_NAME] = file_text(channels)
        return config_files(self.metadata("policy", {DIGEST_ANNOTATION: self.digest}), files)

    def _http_service(self) -> KubernetesService:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata(),
            "spec": {
                "type": "ClusterIP",
                "selector": self.selector,
                "ports": [
                    {"name": "http", "port": self.service.http_port, "targetPort": "http", "appProtocol": "http"}
                ],
            },
        }

    def _grpc_service(self) -> KubernetesService:
        """Headless: a client sees every pod and balances calls, where one virtual address would pin it to one."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self.metadata("grpc"),
            "spec": {
                "type": "ClusterIP",
                "clusterIP": "None",
                "selector": self.selector,
                "ports": [
                    {"name": "grpc", "port": self.service.grpc_port, "targetPort": "grpc", "appProtocol": "grpc"}
                ],
            },
        }

    def _deployment(self) -> Deployment:
        template_metadata: ObjectMeta = {"labels": self.labels}
        if self.restart_on_policy_change:
            template_metadata["annotations"] = {DIGEST_ANNOTATION: self.digest}
        if self.mesh_proxy:
            join_mesh(template_metadata, self.mesh_proxy)
        # Told to stop, it first says that it is not ready and goes on, then finishes what is under way.
        stopping = self.bundle.health.drain_duration + self.longest_request
        pod = pod_spec(self.name, self._container(), self._volumes(), self.selector, stopping)
        return deployment(self.metadata(), template_metadata, self.selector, pod, self.replicas)

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["ports"] = [
            {"name": "http", "containerPort": self.service.http_port},
            {"name": "grpc", "containerPort": self.service.grpc_port},
        ]
        container["env"] = [
            {"name": "VOICE_POLICY_PATH", "value": POLICY_PATH},
            {"name": "VOICE_SETTINGS_PATH", "value": SETTINGS_PATH},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
        container["volumeMounts"] += self._mounts()
        container["lifecycle"] = pre_stop()
        self.probes.onto(container)
        return container

    def _mounts(self) -> list[VolumeMount]:
        mounts: list[VolumeMount] = [
            {"name": "policy", "mountPath": POLICY_PATH, "readOnly": True},
            {"name": "settings", "mountPath": SETTINGS_PATH, "readOnly": True},
        ]
        mounts += secret_mounts(self.secrets)
        if self.api_access:
            mounts.append({"name": TOKEN_VOLUME, "mountPath": TOKEN_PATH, "readOnly": True})
        return mounts

    def _volumes(self) -> list[Volume]:
        volumes: list[Volume] = [
            {"name": "policy", "configMap": {"name": f"{self.name}-policy"}},
            {"name": "settings", "configMap": {"name": f"{self.name}-settings"}},
            *secret_volumes(self.secrets),
        ]
        return [*volumes, token_volume()] if self.api_access else volumes
