"""Model: the capabilities, limits and price of one model."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from voice_policies.measure import Duration
from voice_policies.names import TextPattern
from voice_policies.policy import Policy

Capability = Literal[
    "text", "streaming", "tools", "json_schema", "images", "embeddings", "reranking", "transcription", "speech"
]
"""A feature of a model that a route may require."""
PricedUnit = Literal["token", "character", "audio_second"]
"""The unit of input that a provider bills."""
TokenCount = Annotated[int, Field(ge=1, le=10**12)]
"""A number of tokens."""
Day = Annotated[date, Field(strict=False)]
"""A day. In JSON a string, such as `2026-11-30`."""


class ModelPrice(Policy):
    """The price of a model. 1 USD per million units is 1 micro-USD per unit."""

    unit: PricedUnit = "token"
    input: Annotated[float, Field(ge=0, le=100_000)]
    """USD per million input units."""
    output: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    """USD per million output tokens."""
    as_of: Day
    """The day on which the price was read."""
    source: Annotated[str, Field(min_length=3, max_length=200)]
    """The price list or contract."""

    def micro_usd(self, input_units: int, output_tokens: int) -> int:
        """The cost of one attempt, rounded to whole micro-USD."""
        return round(self.input * input_units + self.output * output_tokens)


class Model(Policy):
    """One model, independent of the account and region that serve it."""

    name: Annotated[str, TextPattern(r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", "gpt-5-mini", 100)]
    """The name in the provider's API."""
    capabilities: Annotated[tuple[Capability, ...], Field(strict=False, min_length=1)]
    context_window: TokenCount
    """Maximum number of tokens of input and output together."""
    tokenizer: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name of the tokenizer that the provider counts with. `None`: not declared. The audit reports
    a missing tokenizer if the price is for tokens or is not declared (rule M12)."""
    price: ModelPrice | None = None
    """`None`: not declared. The audit reports a missing price (rule M12)."""
    longest_gap: Duration = Duration("500ms")
    """Longest time between two chunks of a healthy stream."""
    retires: Day | None = None
    """The day on which the provider shuts the model down. `None` if the provider has announced no day."""
