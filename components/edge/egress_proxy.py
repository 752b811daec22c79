"""An egress proxy: an Envoy through which each caller reaches only the hosts that the caller declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override
from voice_policies import Duration

from components.container import Container
from components.edge.envoy import (
    ALLOW_LISTS_PATH,
    FILE_NAME,
    LIVE_PATH,
    METRICS_PATH,
    READY_PATH,
    STATUS_PORT,
    AllowList,
    allow_list_files,
    bootstrap,
)
from components.files import file_text
from components.network_policy import AddressBlock
from components.node import Replicas
from components.priority import Priority
from components.probes import Probes
from components.scrape import Scrape
from components.server import PRE_STOP, Server
from components.services import to_port
from components.volumes import ConfigFiles
from components.workloads import Deployment

if TYPE_CHECKING:
    from components.kubernetes.types import ServicePort

__all__ = ["EgressProxy"]

CONFIGURATION_PATH = "/etc/envoy"
LOG_INTERVAL_MILLISECONDS = 1000
"""Interval at which Envoy writes its log. With the default of 10 s, a refusal could appear long after the caller has
given up."""


class EgressProxy(Server):
    """One egress proxy, with the hosts that callers may reach through it."""

    folder: ClassVar[str] = "30-egress"
    priority: ClassVar[Priority] = "foundation"
    scrape: ClassVar[Scrape] = Scrape(port=STATUS_PORT, path=METRICS_PATH)
    replicas: Replicas
    allow_lists: tuple[AllowList, ...]
    outward: tuple[AddressBlock, ...]
    """Networks of the admitted hosts."""
    longest_request: Duration
    """Longest timeout of the calls through the proxy. Envoy closes its connections on SIGTERM. So the pre-stop hook
    waits until the endpoint is withdrawn. Then it waits this time, for the last call to end."""

    @override
    def workloads(self) -> Iterator[Deployment]:
        """The proxy. Only the Service lists the ports, because a new port in the pods would restart the pods."""
        ports: list[ServicePort] = [
            {"name": f"tls-{allowed.port}", "port": allowed.port} for allowed in self.allow_lists
        ]
        lists = {name: file_text(document) for name, document in allow_list_files(self.allow_lists).items()}
        yield Deployment(
            name=self.name,
            container=Container(
                command=("/usr/local/bin/envoy",),
                args=(
                    *("--config-path", f"{CONFIGURATION_PATH}/{FILE_NAME}"),
                    *("--concurrency", str(max(1, round(self.sizing.cpu_limit.cores)))),
                    *("--file-flush-interval-msec", str(LOG_INTERVAL_MILLISECONDS)),
                    "--disable-hot-restart",
                    # Otherwise Envoy ignores a misspelt `server_names` in a reloaded file, and admits every host.
                    "--reject-unknown-dynamic-fields",
                ),
                ports={"status": STATUS_PORT},
                mounts={"configuration": CONFIGURATION_PATH, "allow-lists": ALLOW_LISTS_PATH},
                probes=Probes.http(LIVE_PATH, READY_PATH, port="status"),
            ),
            volumes={
                "configuration": ConfigFiles(
                    f"{self.name}-configuration", {FILE_NAME: file_text(bootstrap(self.name))}
                ),
                "allow-lists": ConfigFiles(f"{self.name}-allow-lists", lists, reloaded=True),
            },
            replicas=self.replicas,
            outward=self.outward,
            pre_stop=PRE_STOP + self.longest_request,
            shutdown=Duration("0s"),
            services={self.name: {"ports": [*ports, to_port("status", STATUS_PORT)]}},
        )
