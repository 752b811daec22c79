"""Token budget: the tokens that one tenant or one deployment may use in a span of time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.measure import Duration, PositiveDuration, PositiveRatio, Ratio
from voice_policies.model import TokenCount
from voice_policies.names import CallName
from voice_policies.policy import Policy

WithoutStore = Literal["local_share", "closed"]


class TokenBudget(Policy):
    """At most `tokens` tokens in any span of `window`. Tokens are reserved before an attempt and settled after it.

    An attempt reserves its estimated input and its `max_tokens`. The reservation is settled once: with the reported
    usage, or with an estimate if the provider reports none.
    """

    key: Literal["tenant", "deployment"]
    """The key of the counters: each tenant or each deployment has its own."""
    tokens: TokenCount
    """Tokens per window, input and output together."""
    window: PositiveDuration
    """Length of the window."""
    store: CallName
    """The outbound call that reaches the counters in a durable store without eviction."""
    expiry_margin: PositiveDuration = Duration("30s")
    """A reservation that nobody settles expires after the route's total timeout and this margin."""
    when_store_unavailable: WithoutStore | None = "local_share"
    """Behaviour while the store is down: each replica enforces its `local_share`, or refuses every call. `None`
    also enforces the share, but the audit reports that the behaviour is not declared (rule M10)."""
    local_share: PositiveRatio = Ratio("100%")
    """Part of the budget that one replica enforces while the store is unavailable."""
    max_keys: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Keys kept in memory while the store is unavailable. When full, the key that has idled longest is removed."""
