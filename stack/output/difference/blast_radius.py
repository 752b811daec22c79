"""The blast radius of a change: one sentence for each number or permitted edge that the change affects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from stack.audit.ledgers.measures import Measures

RESOLUTION = 1e-6
"""Smallest difference that a sentence shows. For an availability: 0.0001 %, or 2.6 seconds a month."""
Value: TypeAlias = float | str | None
"""The value of a measure. `None` if a side lacks the subject."""
Sentence: TypeAlias = Callable[[str, Value, Value], str]
"""Takes the subject and the values before and after, and returns the sentence."""


@dataclass(frozen=True, slots=True)
class Consequence:
    """A number or a permitted edge of the platform that differs between two sides."""

    measure: str
    subject: str
    before: Value
    after: Value

    @property
    def text(self) -> str:
        """The consequence as a sentence."""
        return SENTENCES[self.measure](self.subject, self.before, self.after)


def blast_radius(before: Measures, after: Measures) -> Iterator[Consequence]:
    """The differences, in the order of `SENTENCES`. A measure that a side lacks is not compared."""
    for measure in SENTENCES:
        if measure in before and measure in after:
            old, new = before[measure], after[measure]
            for subject in (*old, *(subject for subject in new if subject not in old)):
                if _differ(old.get(subject), new.get(subject)):
                    yield Consequence(measure, subject, old.get(subject), new.get(subject))


def _differ(before: Value, after: Value) -> bool:
    if isinstance(before, int | float) and isinstance(after, int | float):
        return abs(after - before) >= RESOLUTION
    return before != after


def _attempts(subject: str, before: Value, after: Value) -> str:
    place = f"of {subject}" if "." in subject else f"on the {subject} flow"
    return f"worst-case attempts {place} {_number(before)} → {_number(after)}"


def _number(value: Value, form: str = ",.10g") -> str:
    return "none" if value is None else value if isinstance(value, str) else format(value, form)


def _availability(subject: str, before: Value, after: Value) -> str:
    return f"availability of the {subject} flow {_number(before, '.4%')} → {_number(after, '.4%')}"


def _changed(sentence: str, form: str) -> Sentence:
    """A sentence with the subject, the signed change, and both values in a format."""

    def text(subject: str, before: Value, after: Value) -> str:
        old, new = (value if isinstance(value, int | float) else 0 for value in (before, after))
        values = f"({_number(before, form)} → {_number(after, form)})"
        return sentence.format(subject=subject, change=format(new - old, f"+{form}"), values=values)

    return text


UNITS = {"cpu": "cores of CPU", "memory": "GiB of memory"}


def _requests(subject: str, before: Value, after: Value) -> str:
    requested = _changed("{change} {subject} requested at maximum scale {values}", ",.6g")
    return requested(UNITS.get(subject, subject), before, after)


def _edge(subject: str, before: Value, after: Value) -> str:
    if before is None:
        return f"new permitted edge {subject} ({after})"
    if after is None:
        return f"edge {subject} is no longer permitted"
    return f"edge {subject} is {after}, and was {before}"


SENTENCES: Mapping[str, Sentence] = {
    "attempts": _attempts,
    "availability": _availability,
    "edges": _edge,
    "connections": _changed("{change} connections to {subject} at maximum scale {values}", ",.10g"),
    "pooler_connections": _changed("{change} connections of the poolers to {subject} {values}", ",.10g"),
    "requests": _requests,
    "cost": _changed("cost of the {subject} {change} USD a month at the expected scale {values}", ",.2f"),
    "model_cost": _changed(
        "cost of the model calls of {subject} {change} USD a month at the mean load {values}", ",.2f"
    ),
}
"""Measure → its sentence, the most important first."""
