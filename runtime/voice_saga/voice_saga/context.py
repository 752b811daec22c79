"""The context of an action: its inputs, and the messages that it publishes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from voice_saga.errors import InvalidSagaIdError, NotJsonError, TooLargeError

SAGA_BYTES = 1024 * 1024
"""Maximum size of a saga's input and results together, in bytes of JSON. A step receives the input and all earlier
results in one message, and Temporal transmits at most 2 MiB in one message."""
ID_LENGTH = 200
"""Maximum length of a saga's id in characters. Temporal stores 1,000 bytes, and a character takes at most four."""

Branch = Literal["action", "compensation"]
"""The side of a step: its action, or the compensation that undoes it."""


class Reply(Enum):
    """The return value of an action whose result arrives later."""

    LATER = "later"
    """The step ends when `Engine.deliver` gets its outcome. It fails if its timeout, or the saga's, passes first."""


@dataclass(frozen=True, slots=True)
class Message:
    """An event for consumers. They get it at least once, in no guaranteed order."""

    id: str
    """The id is the same at every delivery. Consumers store it to handle the event only once."""
    type: str
    """The event type, such as `document.indexed`. The stream that carries the event has the same name."""
    payload: Any
    trace: str = ""
    """W3C `traceparent` of the sender. Empty without tracing."""


class Results(Mapping[str, Any]):
    """Results by step. Each access returns a copy, so no step can change the journal.

    `hidden` steps have no entry. For an action these are the other steps of its stage, which run in parallel.
    """

    __slots__ = ("_hidden", "_results")

    def __init__(self, results: Mapping[str, Any], hidden: Collection[str] = ()) -> None:
        self._results = results
        self._hidden = hidden

    def __getitem__(self, step: str) -> Any:
        if step in self._hidden:
            raise KeyError(step)
        return copied(self._results[step])

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
    """The input of the saga. Each execution gets a copy."""
    results: Mapping[str, Any]
    """Results by step. An action gets the results of earlier stages; a compensation gets all results."""
    trace: str = ""
    """W3C `traceparent` of the request that started the saga."""
    caused_by: str = ""
    """W3C `traceparent` of the last delivery that resumed the saga on this worker. Empty if there was none."""
    messages: list[Message] = field(default_factory=list)

    @property
    def idempotency_key(self) -> str:
        """The key of the step's effect: the same at every attempt, also after a crash.

        A callee stores it to apply the effect only once.
        """
        return f"{self.saga_id}/{self.step}/{self.branch}"

    def publish(self, event_type: str, payload: Any) -> None:
        """Send a copy of `payload` when the journal records the return of this execution. Otherwise send nothing.

        Raises `NotJsonError` if `payload` is not a JSON value. Raises `TypeError` if `event_type` is not text, and
        `ValueError` for text that no journal can store.
        """
        if not event_type or storable(event_type) != event_type:
            raise ValueError(f"{event_type!r} is no type of an event; expected text such as document.indexed")
        number = len(self.messages)
        copy = json.loads(to_json(payload, f"message {event_type}"))
        self.messages.append(Message(f"{self.idempotency_key}/{number}", event_type, copy, self.trace))


Action = Callable[[StepContext], Awaitable[Any]]
"""Does or undoes a step. Returns a JSON value. It may run again after a crash: use `voice_saga.barrier` in the
transaction of the effect, or a callee that honours `idempotency_key`."""


def storable(text: str) -> str:
    """`text` with U+2400 in place of NUL, and an escape for each lone surrogate.

    A journal can store neither NUL nor a lone surrogate. Raises `TypeError` for a value that is not text.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected text, not {text!r}")
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="backslashreplace").decode()


def checked_id(saga_id: object) -> str:
    """Return the id unchanged.

    Raises `InvalidSagaIdError` if the id is empty, too long or no text, or holds NUL or a lone surrogate.
    """
    if not isinstance(saga_id, str) or not 0 < len(saga_id) <= ID_LENGTH or storable(saga_id) != saga_id:
        shown = storable(saga_id[:ID_LENGTH]) if isinstance(saga_id, str) else saga_id
        raise InvalidSagaIdError(
            f"no saga can have the id {shown!r}: use 1 to {ID_LENGTH} characters without NUL and lone surrogates"
        )
    return saga_id


def checked_limit(limit: int) -> int:
    """Return the maximum length of a list unchanged. Raises `ValueError` if the engines do not accept it."""
    if type(limit) is not int or not 0 < limit < 2**31:
        raise ValueError(f"the limit of a list must be a whole number from 1 to {2**31 - 1}, not {limit!r}")
    return limit


def to_json(value: Any, what: str) -> str:
    """`value` as JSON. Raises `NotJsonError`, which names `what`."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:  # RecursionError: the value is nested too deeply
        raise NotJsonError(f"{what} is not a JSON value: {error}") from None


def copied(value: Any) -> Any:
    """A copy of a JSON value. `deepcopy` would refuse a nesting that JSON allows."""
    return json.loads(json.dumps(value))


def size_of(value: Any, what: str) -> int:
    """The number of bytes of `value` as JSON. Raises `NotJsonError`."""
    return len(to_json(value, what))


def checked_size(size: int, room: int, what: str) -> None:
    """Raises `TooLargeError` if `size` bytes exceed the remaining `room`."""
    if size > room:
        raise TooLargeError(
            f"{what} takes {size} bytes of JSON; expected at most {max(room, 0)} (a whole saga may take {SAGA_BYTES}); "
            "store the data elsewhere, and let the step return a reference"
        )
