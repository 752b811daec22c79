"""Stream latency: the time to the first token, and the time per token after it."""

from __future__ import annotations

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.policy import Policy


class StreamLatency(Policy):
    """The P95 latency of a model's answers: the time to the first token, and the time per further token.

    For a deployment the latency is a fact, for a route it is an objective.
    """

    first_token: PositiveDuration
    """Time to the first token, or to the whole answer if the model does not stream."""
    per_token: Duration = Duration("0s")
    """Time per output token after the first."""

    def whole(self, output_tokens: int) -> Duration:
        """Time to the end of an answer of `output_tokens` tokens."""
        return self.first_token + self.per_token * max(output_tokens - 1, 0)
