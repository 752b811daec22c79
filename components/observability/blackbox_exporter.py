"""The blackbox exporter: asks, as a client would, what has no metrics of its own, and tells what it was answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from voice_policies import Duration

from components.access import service_account
from components.component import Component, Exemption
from components.container import Image, hardened_container
from components.network_policy import NetworkEnd, network_policy
from components.node import Replicas, Sizing
from components.policy_config import CONFIG_DIGEST_ANNOTATION, config_files, digest_of, file_text
from components.probes import HttpProbes
from components.scrape import BlackboxModule, Scrape
from components.stateful_set import mount, tcp_service
from components.workload import deployment, pod_spec, pre_stop

if TYPE_CHECKING:
    from components.component import Resource
    from components.kubernetes.types import Container, ObjectMeta

PORT = 9115
CONFIG_PATH = "/etc/blackbox"
STOP = Duration("10s")
TLS = "tls"
"""The module that asks for a certificate."""


class BlackboxExporter(Component):
    """One replica: it keeps nothing, and asks again a moment later."""

    kind: ClassVar[str] = "BlackboxExporter"
    folder: ClassVar[str] = "30-observability"
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    image: Image
    sizing: Sizing
    modules: tuple[BlackboxModule, ...]
    """The questions that the scraped servers declare."""
    server_name: str | None
    """Whose certificate the module `tls` asks for: APISIX ends a handshake for any name but its own. `None` where
    nothing has one."""
    ingress: tuple[NetworkEnd, ...] = ()
    egress: tuple[NetworkEnd, ...] = ()

    def conflicts(self) -> Iterator[str]:
        """Settings that cannot hold together, a sentence each."""
        names = [TLS, *(module.name for module in self.modules)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"modules: {name} stands twice"

    @property
    def files(self) -> dict[str, str]:
        """Its configuration, as mounted."""
        modules = {module.name: module.document() for module in (*self._certificates(), *self.modules)}
        return {"blackbox.json": file_text({"modules": modules})}

    def _certificates(self) -> Iterator[BlackboxModule]:
        if self.server_name:
            # The exporter tells when the certificate ends, whoever signed it.
            tls_config = {"server_name": self.server_name, "insecure_skip_verify": True}
            yield BlackboxModule(name=TLS, prober="tcp", settings={"tls": True, "tls_config": tls_config})

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
