"""The states of one attempt of a model call.

Admitted → Reserved → Connecting → Opened → Committed → Finished ─┐
   │                      │           │         │                 ├→ Settled
   └──────────────────────┴───────────┴─────────┴→ Failed ────────┤
                           any state before the end → Cancelled ──┘
"""

from __future__ import annotations

from dataclasses import dataclass

from voice_models.answer import Reader
from voice_models.classification import ErrorClass
from voice_models.usage import ModelAttempted


@dataclass(frozen=True, slots=True)
class Admitted:
    """The candidate may be attempted: it is not in cooldown, and its breaker admits the attempt."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Every budget holds the tokens of the attempt."""


@dataclass(frozen=True, slots=True)
class Connecting:
    """The request is being sent, and no status has arrived."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The status has arrived, but no content."""

    status: int
    reader: Reader


@dataclass(frozen=True, slots=True)
class Committed:
    """The first content has arrived. No other candidate may answer."""

    reader: Reader


@dataclass(frozen=True, slots=True)
class Finished:
    """The provider said that the answer is complete."""

    reader: Reader


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed."""

    error_class: ErrorClass


@dataclass(frozen=True, slots=True)
class Cancelled:
    """An end before the answer: the caller left, another attempt answered first, or this process had an error."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The usage event exists. Next the sinks get the event, and the budgets get the unused tokens back."""

    event: ModelAttempted


State = Admitted | Reserved | Connecting | Opened | Committed | Finished | Failed | Cancelled | Settled
