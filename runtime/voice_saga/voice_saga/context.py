"""The context of an action: its inputs, and the messages that it sends."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from voice_saga.errors import NotJsonError

Branch = Literal["action", "compensation"]
"""The side of a step: its action, or the compensation that undoes it."""


class Reply(Enum):
    """The return value of an action whose result comes later."""

    LATER = "later"
    """The step ends when its outcome is delivered, or fails when its timeout passes without one."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way to its consumers. Delivered at least once, in no promised order."""

    id: str
    """The same at every delivery: what a consumer remembers to handle it once."""
    type: str
    """The event type, such as `document.indexed`, and the stream that carries it."""
    payload: Any
    trace: str = ""
    """W3C `traceparent` of what sent it; empty where nothing traces."""


@dataclass(slots=True)
class StepContext:
    """One execution of an action or a compensation."""

    saga_id: str
    saga: str
    step: str
    branch: Branch
    input: Any
    """The input of the saga."""
    results: Mapping[str, Any]
    """Results of earlier steps, by step. A compensation finds its own step's result there, if there is one."""
    trace: str = ""
    """W3C `traceparent` of what started the saga."""
    caused_by: str = ""
    """That of the delivery which let the saga go on; empty where nothing was waited for."""
    messages: list[Message] = field(default_factory=list)

    @property
    def idempotency_key(self) -> str:
        """The same at every attempt, also after a crash: what a callee remembers to apply the effect once."""
        return f"{self.saga_id}/{self.step}/{self.branch}"

    def publish(self, event_type: str, payload: Any) -> None:
        """Send `payload` when, and only when, the journal records that this execution succeeded."""
        number = len(self.messages)
        self.messages.append(Message(f"{self.idempotency_key}/{number}", event_type, payload, self.trace))


Action = Callable[[StepContext], Awaitable[Any]]
"""Does a step, or undoes one. Returns a JSON value. It may run again after a crash: its effect is made once by the
barrier in its own transaction, or by a callee that honours `idempotency_key`."""


def without_nul(text: str) -> str:
    """`text` with U+2400 for the character NUL, which PostgreSQL keeps in no text."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}")


def to_json(value: Any, what: str) -> str:
    """`value` as JSON; raises `NotJsonError` that names `what`."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise NotJsonError(f"{what} is no JSON value: {error}") from None
