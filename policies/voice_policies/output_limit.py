"""Output limit: the longest answer that a route asks for."""

from __future__ import annotations

from voice_policies.model import TokenCount
from voice_policies.policy import Policy


class OutputLimit(Policy):
    """A bound on the output tokens of one answer. Without it neither cost nor duration has a bound."""

    max_tokens: TokenCount
    """Most output tokens. The runtime sets this limit on a request without a limit, and lowers a larger limit."""
