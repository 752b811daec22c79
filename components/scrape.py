"""How Prometheus watches a server: it reads the server's own metrics, or the blackbox exporter asks in its place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name

__all__ = ["ANSWERS", "CONNECTS", "CONNECTS_OVER_TLS", "BlackboxModule", "Scrape"]

SERIES = 2_000
"""Series of one pod: the runtime, the process and the gRPC library of a service, counted generously."""
PROBE_SERIES = 20
"""Series of one probe by the blackbox exporter."""


class BlackboxModule(ClosedModel):
    """A question that the blackbox exporter asks. Source of the fields: its CONFIGURATION.md."""

    name: Name
    prober: Literal["tcp", "http"]
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
"""The port opens."""
CONNECTS_OVER_TLS = BlackboxModule(name="tcp-tls", prober="tcp", settings={"tls": True})
"""The port opens, and the server proves its name."""
ANSWERS = BlackboxModule(
    name="http", prober="http", settings={"valid_status_codes": [200, 401], "follow_redirects": False}
)
"""The server answers over HTTP, even if it only asks for a password."""


class Scrape(ClosedModel):
    """The metrics that Prometheus reads of each pod of a server."""

    port: Annotated[int, Field(ge=1, le=65_535)]
    path: Annotated[str, Field(pattern=r"^(/[a-z0-9/_-]+)?$")] = "/metrics"
    series: Annotated[int, Field(ge=1)] = SERIES
    """The most that one pod exposes."""
    honor_labels: bool = False
    """The series name the pod and the namespace that they are about, which are not the server's own."""
    module: BlackboxModule | None = None
    """The question that the blackbox exporter asks at `port` and `path`; `None` reads the pod's own metrics."""

    @classmethod
    def probe(cls, module: BlackboxModule, port: int, path: str = "") -> Scrape:
        """For a server without metrics that Prometheus may read."""
        return cls(port=port, path=path, series=PROBE_SERIES, module=module)
