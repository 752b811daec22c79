"""Address: the host and port of a callee, and its egress proxy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.names import TextPattern
from voice_policies.policy import Policy


class Address(Policy):
    """The network address of a callee."""

    host: Annotated[str, TextPattern(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "api.example.com", 253)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    via: Annotated[str, TextPattern(r"^[a-z0-9.-]+:\d{1,5}$", "egress-proxy:8443")] | None = None
    """The egress proxy that leads to an external host. The connection uses TLS. `None` without a proxy."""
    tls: Literal[True] | None = None
    """True for a store outside the cluster that uses TLS without a proxy."""

    @property
    def uses_tls(self) -> bool:
        """True if the connection uses TLS: through an egress proxy, or to a store with `tls`."""
        return self.via is not None or self.tls is True
