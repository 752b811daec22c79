"""The context of an action: its inputs, and the messages that it sends."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from voice_saga.errors import NotJsonError, TooLargeError

SAGA_BYTES = 1024 * 1024
"""Bytes of JSON that a saga's input and the results of its steps take together at most. Temporal carries 2 MiB in one
message, and each step is given all of them."""

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


class Results(Mapping[str, Any]):
    """Results by step, but for those of `hidden` steps. Each look at one is a copy, so nobody changes the journal's."""

    __slots__ = ("_hidden", "_results")

    def __init__(self, results: Mapping[str, Any], hidden: Collection[str] = ()) -> None:
        self._results = results
        self._hidden = hidden

    def __getitem__(self, step: str) -> Any:
        if step in self._hidden:
            raise KeyError(step)
        return deepcopy(self._results[step])

    def __iter__(self) -> Iterator[str]:
        return (step for step in self._results if step not in self._hidden)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(slots=True)
class StepContext:
    """One execution of an action or a compensation."""

    saga_id: str
    saga: str
    step: str
    branch: Branch
    input: Any
    """The input of the saga: a copy for each execution."""
    results: Mapping[str, Any]
    """Results of earlier stages, by step. A compensation finds its own step's result there, if there is one."""
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
        raise NotJsonError(f"{what} is not a JSON value: {error}") from None


def size_of(value: Any, what: str) -> int:
    """The bytes of `value` as JSON. Raises `NotJsonError`."""
    return len(to_json(value, what))


def checked_size(size: int, room: int, what: str) -> None:
    """Raises `TooLargeError` where `size` bytes are more than the `room` that is left."""
    if size > room:
        raise TooLargeError(
            f"{what} takes {size} bytes of JSON, and {max(room, 0)} of {SAGA_BYTES} are left to this saga; "
            "store it elsewhere, and let the step return a reference"
        )
