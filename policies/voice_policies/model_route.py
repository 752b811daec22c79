"""Model route: the candidates of one kind of model call, and the policies of the call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from voice_policies.cooldown import Cooldown
from voice_policies.measure import Duration
from voice_policies.model import Capability
from voice_policies.model_fallback import ModelFallback
from voice_policies.model_hedge import ModelHedge
from voice_policies.names import DnsLabel
from voice_policies.output_limit import OutputLimit
from voice_policies.policy import Policy
from voice_policies.prompt_privacy import PromptPrivacy
from voice_policies.response_cache import ResponseCache
from voice_policies.stream_latency import StreamLatency
from voice_policies.stream_timeout import StreamTimeout

HEDGED: frozenset[Capability] = frozenset({"embeddings", "reranking"})
"""Capabilities whose answers are small and repeatable, so that a second request wastes little."""
LatencyClass = Literal["interactive", "batch", "reasoning"]
"""`interactive`: a user waits for the first token. `batch`: nobody waits. `reasoning`: the model thinks first."""


class ModelRoute(Policy):
    """The candidates and policies of the model calls that name this route. Such a call needs no address."""

    candidates: Annotated[tuple[DnsLabel, ...], Field(strict=False, min_length=1)]
    """Names of deployments in `Models.deployments`, in order of preference."""
    capabilities: Annotated[tuple[Capability, ...], Field(strict=False, min_length=1)]
    """Features that every candidate must have."""
    latency_class: LatencyClass = "interactive"
    objective: StreamLatency | None = None
    """A successful call is good if it meets `first_token` and `per_token`. `None`: every successful call is good."""
    timeout: StreamTimeout = StreamTimeout()
    fallback: ModelFallback = ModelFallback()
    hedge: ModelHedge | None = None
    """Only for embeddings and re-ranking. `None`: no attempt starts before the previous attempt has failed."""
    cooldown: Cooldown = Cooldown()
    output_limit: OutputLimit | None = None
    """Required for models that generate text (rule M10); `None` for others."""
    budgets: Annotated[tuple[DnsLabel, ...], Field(strict=False)] = ()
    """Names of the tenants' budgets in `Models.budgets`. An attempt reserves tokens in each of these budgets, and
    in each budget of its deployment."""
    cache: ResponseCache | None = None
    """`None`: no cache."""
    privacy: PromptPrivacy = PromptPrivacy()

    @property
    def max_waiting(self) -> Duration:
        """Longest time until the last attempt has its first content, if no attempt has to wait for a candidate."""
        attempts = self.fallback.max_attempts
        return self.timeout.first_token * attempts + self.fallback.backoff * (attempts - 1)

    @override
    def conflicts(self) -> Iterator[str]:
        if twice := sorted({name for name in self.candidates if self.candidates.count(name) > 1}):
            yield f"candidates contains {', '.join(twice)} twice"
        attempts = self.fallback.max_attempts
        if self.fallback.distinct and attempts > len(self.candidates):
            yield (
                f"fallback.max_attempts {attempts} needs {attempts} candidates, found {len(self.candidates)}: "
                "add candidates or lower max_attempts"
            )
        yield from self._hedge_conflicts()
        if self.timeout.total < self.max_waiting:
            yield (
                f"timeout.total {self.timeout.total} is shorter than {attempts} attempts of timeout.first_token "
                f"{self.timeout.first_token} with backoff: set at least {self.max_waiting}"
            )

    def _hedge_conflicts(self) -> Iterator[str]:
        hedge = self.hedge
        if hedge is None:
            return
        if others := sorted(set(self.capabilities) - HEDGED):
            yield f"hedge is only for {' and '.join(sorted(HEDGED))}, and the route requires {', '.join(others)}"
        if self.fallback.max_attempts == 1:
            yield "hedge needs a second attempt, and fallback.max_attempts is 1"
        if hedge.delay >= self.timeout.first_token:
            yield f"hedge.delay {hedge.delay} must be below timeout.first_token {self.timeout.first_token}"
