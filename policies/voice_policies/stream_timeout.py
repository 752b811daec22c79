"""Stream timeout: the time limits of one model call."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from voice_policies.measure import Duration, PositiveDuration
from voice_policies.policy import Policy


class StreamTimeout(Policy):
    """Limits on a model call, whose answer is streamed or comes as a whole.

    The defaults fit an interactive answer: two attempts of 700 ms and 50 ms of backoff leave 1.55 s of the
    3 s for the rest of the answer.
    """

    connect: PositiveDuration = Duration("250ms")
    """Longest time of an attempt until its connection is open. `first_token` bounds it as well."""
    first_token: PositiveDuration = Duration("700ms")
    """Longest time of an attempt until its first content. If the model does not stream: until the whole answer."""
    idle: PositiveDuration = Duration("1s")
    """Longest wait for the next part of the answer, after the first content."""
    total: PositiveDuration = Duration("3s")
    """Longest time of the call with all its attempts. The caller's remaining deadline bounds it as well."""

    @classmethod
    def reasoning(cls) -> StreamTimeout:
        """Limits for models that think before they answer. The total of 10 min is the default of OpenAI's SDK."""
        return cls(first_token=Duration("120s"), idle=Duration("60s"), total=Duration("10m"))

    @override
    def conflicts(self) -> Iterator[str]:
        if self.total < self.first_token:
            yield f"total {self.total} is below first_token {self.first_token}: the call ends before first_token"
            " can end an attempt"
