"""How Prometheus watches a server: it scrapes the server's metrics, or the blackbox exporter probes the server."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel, TextPattern

from components.operation import Name
from components.secret_keys import SecretKeys

__all__ = ["ANSWERS", "CONNECTS", "CONNECTS_OVER_TLS", "RESOLVES", "BlackboxModule", "Scrape"]

SERIES = 2_000
"""Estimate of the largest number of series of one pod: series of the runtime, the process and the gRPC library."""
PROBE_SERIES = 20
"""Series of one probe by the blackbox exporter."""


class BlackboxModule(ClosedModel):
    """A module of the blackbox exporter. The exporter's CONFIGURATION.md describes the fields."""

    name: Name
    prober: Literal["tcp", "http", "dns"]
    settings: dict[str, Any] = Field(default_factory=dict)
    """Fields of the prober."""

    def document(self) -> dict[str, Any]:
        """The module in the exporter's configuration."""
        return {
            "prober": self.prober,
            "timeout": "5s",
            self.prober: {"preferred_ip_protocol": "ip4", **self.settings},
        }


CONNECTS = BlackboxModule(name="tcp", prober="tcp")
"""Succeeds when the TCP port is open."""
CONNECTS_OVER_TLS = BlackboxModule(name="tcp-tls", prober="tcp", settings={"tls": True})
"""Succeeds when the TCP port is open and the server's certificate is valid."""
ANSWERS = BlackboxModule(
    name="http", prober="http", settings={"valid_status_codes": [200, 401], "follow_redirects": False}
)
"""Succeeds when the server answers with status 200, or with 401 because it asks for a password."""


RESOLVES = BlackboxModule(
    name="dns", prober="dns", settings={"query_name": "kubernetes.default.svc.cluster.local", "query_type": "A"}
)
"""Succeeds when the DNS server resolves the name of the cluster's own API server."""


class Scrape(ClosedModel):
    """A scrape of each pod of a server, or a probe of the server by the blackbox exporter."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    path: Annotated[str, TextPattern(r"^(/[a-z0-9/_-]+)?$", "/metrics")] = "/metrics"
    series: Annotated[int, Field(ge=1)] = SERIES
    """Largest number of series of one pod."""
    health: str | None = None
    """A metric that is 1 while the server works. `None`: the server counts as working while the scrape or
    the probe succeeds."""
    honor_labels: bool = False
    """True: Prometheus keeps the labels `pod` and `namespace` that the server sends. For example, kube-state-metrics
    sends series about other pods. Each series carries the name and the namespace of its pod."""
    token: SecretKeys | None = None
    """A secret with one key. Its value is the bearer token that Prometheus sends. `None`: Prometheus sends no token."""
    module: BlackboxModule | None = None
    """The module with which the blackbox exporter probes `port` and `path`. `None`: Prometheus scrapes the pod."""

    @classmethod
    def probe(cls, module: BlackboxModule, port: int, path: str = "") -> Scrape:
        """A scrape by the blackbox exporter, for a server without readable metrics."""
        return cls(port=port, path=path, series=PROBE_SERIES, module=module)
