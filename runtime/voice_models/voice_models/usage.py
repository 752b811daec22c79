"""The use of a model by one attempt: its tokens, its cost, and the event that reports them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from voice_policies import PricedUnit

from voice_models.classification import ErrorClass

Ending = Literal["finished", "failed", "cancelled"]


class Usage(NamedTuple):
    """The input and the output of one attempt."""

    input: int
    """Input in the unit that the provider bills: tokens, characters or seconds of audio."""
    output: int
    """Output tokens."""
    estimated: bool = False
    """True if the numbers are estimates, because the provider reported no usage."""
    unit: PricedUnit = "token"
    """The unit of `input`."""

    @property
    def total(self) -> int:
        """Input and output together. Budgets count this number only if `unit` is `token`."""
        return self.input + self.output


NOTHING = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class ModelAttempted:
    """The usage event of one ended attempt, without prompt, answer or key.

    Each attempt whose tokens were reserved has exactly one event.
    """

    route: str
    deployment: str
    provider: str
    model: str
    """The model's name in the provider's API."""
    tenant: str
    """The caller's tenant. Empty if the request has no tenant."""
    attempt: int
    """The number of the attempt within its call, from 1."""
    input_units: int
    """Input in the unit that the provider bills."""
    input_unit: PricedUnit
    """The unit of `input_units`."""
    output_tokens: int
    micro_usd: int
    """Cost in millionths of a US dollar; 0 if the model has no price.

    If the price has another unit than `input_unit`, the cost contains an estimate of the input in the price's unit.
    """
    estimated: bool
    """True if tokens and cost are estimates, because the provider reported no usage."""
    ending: Ending
    error_class: ErrorClass | None
    """The reason why the attempt failed; `None` if it did not fail."""
    finish_reason: str | None
    """The provider's `finish_reason` of a finished attempt. `length`: the output limit cut the answer."""
    first_token: float | None
    """Seconds from the start of the attempt to the first content; `None` without content."""
    duration: float
    """Seconds from the start of the attempt to its end."""


class UsageSink(Protocol):
    """Receives every `ModelAttempted` event. A sink must not block. The runtime logs exceptions of a sink."""

    def on_attempt(self, event: ModelAttempted) -> None:
        """Handle the event of an attempt that has ended and is settled."""
        ...
