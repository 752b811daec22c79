"""Model deployment: a model at a provider, with its credential, its speed and its quota."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from voice_policies.names import DnsLabel, TextPattern
from voice_policies.policy import Policy
from voice_policies.stream_latency import StreamLatency


class ModelDeployment(Policy):
    """A candidate of routes: one model at one provider under one credential."""

    provider: DnsLabel
    """Name of the provider in `Models.providers`."""
    model: DnsLabel
    """Name of the model in `Models.models`."""
    credential: Annotated[str, TextPattern(r"^/[A-Za-z0-9._/-]+$", "/etc/voice/secrets/model-adapter-llm/openai", 253)]
    """File that holds the API key. Deployments with the same file share the key. They go into cooldown
    together when the provider refuses the key or when the key's quota is spent."""
    latency: StreamLatency
    """The deployment's speed at P95."""
    budgets: Annotated[tuple[DnsLabel, ...], Field(strict=False)] = ()
    """Names of the budgets in `Models.budgets` that hold the provider's quota of tokens."""
    streams: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The provider's quota of parallel streams. `None` if the provider has no such quota."""
