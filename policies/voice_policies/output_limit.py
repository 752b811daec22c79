"""Output limit: the longest answer that a route asks for."""

from __future__ import annotations

from voice_policies.model import TokenCount
from voice_policies.policy import Policy


class OutputLimit(Policy):
    """A bound on the output tokens of one answer, and therefore on its cost."""

    max_tokens: TokenCount
    """Upper limit of output tokens. The runtime adds this limit to a request without one, and lowers a larger limit."""
