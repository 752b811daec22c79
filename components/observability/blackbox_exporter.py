"""The blackbox exporter: asks, as a client would, what has no metrics of its own, and tells what it was answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from voice_policies import Duration

from components.access import service_account
from components.component import Component, Exemption
from components.consul.servers import RPC_PORT
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.stateful_set import mount, tcp_service
from components.valkey.access import HEALTH_USER
from components.workload import deployment, pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, ObjectMeta

PORT = 9115
CONFIG_PATH = "/etc/blackbox"
STOP = Duration("10s")
TLS = "tls"
Probe = Literal["tcp", "valkey", "sentinel", "http", "consul"]
"""What is asked of a pod: to open its port; as Valkey or Sentinel, to answer PING; over HTTP, to answer, if only that
it wants to know who asks; as Consul, for the leader."""


def _tcp(**options: Any) -> dict[str, Any]:
    return {"prober": "tcp", "timeout": "5s", "tcp": {"preferred_ip_protocol": "ip4", **options}}


def _http(**options: Any) -> dict[str, Any]:
    return {"prober": "http", "timeout": "5s", "http": {"preferred_ip_protocol": "ip4", **options}}


PING = ({"send": "PING"}, {"expect": r"^\+PONG"})
MODULES: dict[str, dict[str, Any]] = {
    "tcp": _tcp(),
    "valkey": _tcp(query_response=[{"send": f"AUTH {HEALTH_USER} -"}, {"expect": r"^\+OK"}, *PING]),
    "sentinel": _tcp(query_response=[*PING]),
    "http": _http(valid_status_codes=[200, 401], follow_redirects=False),
    "consul": _http(fail_if_body_not_matches_regexp=[f":{RPC_PORT}"]),
}
"""Source: CONFIGURATION.md of blackbox_exporter. Each `query_response` waits for its `expect`, then says its `send`."""


class BlackboxExporter(Component):
    """One replica: it keeps nothing, and asks again a moment later."""

    kind: ClassVar[str] = "BlackboxExporter"
    folder: ClassVar[str] = "30-observability"
    image: Image
    sizing: Sizing
    server_name: str
    """Whose certificate the module `tls` asks for: APISIX ends a handshake for any name but its own."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        # When the certificate ends is asked for, whoever signed it.
        tls = _tcp(tls=True, tls_config={"server_name": self.server_name, "insecure_skip_verify": True})
        return {"blackbox.json": file_text({"modules": {TLS: tls, **MODULES}})}

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """Every hardening default it gives up."""
        return (
            Exemption(rule="own_readiness", reason="the program tells one thing of itself: that it answers"),
            Exemption(rule="two_replicas", reason="it holds nothing, and asks again half a minute later"),
        )

    def resources(self) -> Iterator[Resource]:
        """What it needs first, then itself."""
        yield service_account(self.metadata())
        yield config_files(self.metadata("config"), self.files)
        yield network_policy(self.metadata(), self.selector, self.ingress, self.egress)
        yield tcp_service(self.metadata(), self.selector, PORT)
        config: Any = {"name": "config", "configMap": {"name": f"{self.name}-config"}}
        pod = pod_spec(self.name, self._container(), [config], self.selector, STOP)
        annotations = {CONFIG_DIGEST_ANNOTATION: digest_of(self.files)}
        template: ObjectMeta = {"labels": self.labels, "annotations": annotations}
        yield deployment(self.metadata(), template, self.selector, pod, Replicas(min=1, max=1))

    def _container(self) -> Container:
        container = hardened_container(self.name, self.image, self.sizing)
        container["args"] = [f"--config.file={CONFIG_PATH}/blackbox.json"]
        container["ports"] = [{"name": "http", "containerPort": PORT}]
        mount(container, "config", CONFIG_PATH, read_only=True)
        HttpProbes(liveness_path="/-/healthy", readiness_path="/-/healthy").onto(container)
        container["lifecycle"] = pre_stop()
        return container
