"""Response cache: repeated requests answered without the provider."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voice_policies.measure import PositiveDuration
from voice_policies.names import CallName
from voice_policies.policy import Policy

CacheScope = Literal["tenant", "user", "model", "prompt_version"]
"""A part of a cache's key in addition to the request itself."""


class ResponseCache(Policy):
    """Exact matches only: the same request of the same scope within `max_age` gets the earlier answer."""

    scope: Annotated[tuple[CacheScope, ...], Field(strict=False, min_length=1)] = (
        "tenant",
        "user",
        "model",
        "prompt_version",
    )
    """Requests that differ in any of these never share an answer."""
    max_age: PositiveDuration
    """Time for which the cache keeps an answer."""
    store: CallName
    """The outbound call that reaches the cache."""
