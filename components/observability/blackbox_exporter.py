"""The blackbox exporter: connects to servers as a client would, and exports the results as metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from typing_extensions import override
from voice_policies import Duration

from components.component import Exemption
from components.container import Container, go_runtime
from components.files import file_text
from components.probes import Probes
from components.scrape import BlackboxModule, Scrape
from components.server import Server
from components.services import tcp
from components.volumes import ConfigFiles
from components.workloads import ONE, Deployment

__all__ = ["PORT", "TLS", "BlackboxExporter"]

PORT = 9115
CONFIG_PATH = "/etc/blackbox"
SHUTDOWN = Duration("10s")
TLS = "tls"
"""The module that reads a server's certificate."""


class BlackboxExporter(Server):
    """One replica. The exporter stores nothing: each scrape causes a new probe."""

    folder: ClassVar[str] = "30-observability"
    exemptions: ClassVar[tuple[Exemption, ...]] = (
        Exemption(rule="own_readiness", reason="the exporter has one health endpoint, for liveness and readiness"),
        Exemption(rule="two_replicas", reason="the exporter stores nothing; a restart loses one or two scrapes"),
    )
    scrape: ClassVar[Scrape] = Scrape(port=PORT)
    modules: tuple[BlackboxModule, ...]
    """The probes that the scraped servers declare."""
    server_name: str | None
    """Server name for the module `tls`. APISIX refuses a handshake for any other name; Elasticsearch ignores the name.
    `None`: the name of the probed host."""

    @override
    def conflicts(self) -> Iterator[str]:
        names = [TLS, *(module.name for module in self.modules)]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"modules: {name} appears twice"

    @property
    def files(self) -> dict[str, str]:
        """Names and texts of the configuration files, as mounted."""
        modules = {module.name: module.document() for module in (self._certificate_module(), *self.modules)}
        return {"blackbox.json": file_text({"modules": modules})}

    def _certificate_module(self) -> BlackboxModule:
        # The exporter reports the expiry of a certificate from any authority. In TLS 1.3 it reads the server's
        # certificate even if the server then refuses a client without a certificate, as Elasticsearch's nodes do.
        named = {"server_name": self.server_name} if self.server_name else {}
        tls_config = {**named, "insecure_skip_verify": True}
        return BlackboxModule(name=TLS, prober="tcp", settings={"tls": True, "tls_config": tls_config})

    @override
    def workloads(self) -> Iterator[Deployment]:
        yield Deployment(
            name=self.name,
            container=Container(
                args=(f"--config.file={CONFIG_PATH}/blackbox.json",),
                env=go_runtime(self.sizing),
                ports={"http": PORT},
                mounts={"config": CONFIG_PATH},
                probes=Probes.http("/-/healthy", "/-/healthy"),
            ),
            volumes={"config": ConfigFiles(f"{self.name}-config", self.files)},
            replicas=ONE,
            shutdown=SHUTDOWN,
            services={self.name: tcp(PORT)},
        )
