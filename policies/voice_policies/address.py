"""Address: the host and port of a callee, and the way to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.names import TextPattern
from voice_policies.policy import Policy


class Address(Policy):
    """Where a callee is reached."""

    host: Annotated[str, TextPattern(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "api.example.com", 253)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    via: Annotated[str, TextPattern(r"^[a-z0-9.-]+:\d{1,5}$", "egress-proxy:8443")] | None = None
    """The egress proxy that an external host is reached through, over TLS; `None` for a callee that is reached as it
    is."""
    tls: Literal[True] | None = None
    """True for a store outside the cluster that is reached over TLS without a proxy."""
