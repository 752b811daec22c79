"""One of our services as Kubernetes resources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import FILE_NAME, SETTINGS_FILE_NAME, Duration, PolicyBundle, ServiceSettings

from components.component import PART_OF
from components.container import POD_NAME, Container, go_runtime
from components.files import DIGEST_ANNOTATION, file_text
from components.grpc_service_config import GRPC_FILE_NAME, grpc_channels
from components.mesh.proxy import mesh_member
from components.node import Replicas, Service, Sizing
from components.probes import Probes
from components.secret_keys import SecretKeys
from components.server import Server
from components.services import each_ready_pod, to_port
from components.volumes import ConfigFiles
from components.workloads import Deployment

if TYPE_CHECKING:
    from components.kubernetes.types import EnvVarSource, ObjectMeta

__all__ = ["Microservice"]

POLICY_PATH = "/etc/voice/policy"
SETTINGS_PATH = "/etc/voice/settings"


class Microservice(Server):
    """A service of the catalogue in one environment."""

    folder: ClassVar[str] = "50-services"
    service: Service
    replicas: Replicas
    bundle: PolicyBundle
    settings: ServiceSettings
    credentials: tuple[SecretKeys, ...] = ()
    """Secrets for the dependencies that the service calls."""
    longest_request: Duration
    """The longest deadline of the service's operations. A shutdown may have to wait for this time."""
    restart_on_policy_change: bool = False
    """True writes the bundle's digest onto the pod template, so that a changed policy restarts the pods. Otherwise the
    pods reload the policy."""
    mesh_proxy: Sizing | None = None
    """Size of the mesh's proxy in each pod. `None` without a mesh."""

    @property
    @override
    def labels(self) -> dict[str, str]:
        return {**super().labels, "app.kubernetes.io/component": self.service.tier}

    @override
    def conflicts(self) -> Iterator[str]:
        if self.bundle.metadata.service != self.name:
            yield f"bundle of {self.bundle.metadata.service} cannot be mounted into {self.name}"
        if self.bundle.metadata.digest is None:
            yield "bundle must be sealed: its digest is missing"

    @property
    def digest(self) -> str:
        """Digest of the bundle that the pods mount."""
        return self.bundle.metadata.digest or ""

    @override
    def workloads(self) -> Iterator[Deployment]:
        """The pods.

        On SIGTERM the service reports that it is not ready, serves for the drain duration, then finishes its requests.
        """
        ports = {"http": self.service.http_port, "grpc": self.service.grpc_port}
        http, grpc = (to_port(name, port, app_protocol=name) for name, port in ports.items())
        yield Deployment(
            name=self.name,
            container=Container(
                ports=ports,
                env=self._variables(),
                mounts={"policy": POLICY_PATH, "settings": SETTINGS_PATH},
                secrets=self.credentials,
                probes=Probes.http("/health", "/ready", startup=self.service.startup),
            ),
            volumes={
                "policy": ConfigFiles(
                    f"{self.name}-policy", self._policy(), reloaded=True, annotations={DIGEST_ANNOTATION: self.digest}
                ),
                "settings": ConfigFiles(f"{self.name}-settings", self._settings()),
            },
            priority=self.service.tier,
            replicas=self.replicas,
            startup=self.service.startup,
            shutdown=self.bundle.health.drain_duration + self.longest_request,
            services={self.name: {"ports": [http]}, f"{self.name}-grpc": each_ready_pod(grpc)},
            pod_metadata=self._pod_metadata(),
        )

    def _variables(self) -> dict[str, str | EnvVarSource]:
        runtime = go_runtime(self.sizing) if self.service.language == "go" else {}
        return {
            "VOICE_POLICY_PATH": POLICY_PATH,
            "VOICE_SETTINGS_PATH": SETTINGS_PATH,
            "POD_NAME": POD_NAME,
            # OpenTelemetry's SDKs read this variable. It tells the Collector that this sender samples its own traces.
            "OTEL_RESOURCE_ATTRIBUTES": f"service.namespace={PART_OF}",
            **runtime,
        }

    def _policy(self) -> dict[str, str]:
        files = {FILE_NAME: file_text(self.bundle.to_document())}
        if channels := grpc_channels(self.bundle.outbound):
            files[GRPC_FILE_NAME] = file_text(channels)
        return files

    def _settings(self) -> dict[str, str]:
        return {SETTINGS_FILE_NAME: file_text(self.settings.model_dump(mode="json", exclude_none=True))}

    def _pod_metadata(self) -> ObjectMeta:
        mesh = mesh_member(self.mesh_proxy)
        if not self.restart_on_policy_change:
            return mesh
        return {**mesh, "annotations": {DIGEST_ANNOTATION: self.digest, **mesh.get("annotations", {})}}
