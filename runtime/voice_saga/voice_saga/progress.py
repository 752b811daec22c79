"""How far a saga is, folded from its journal, and what follows from that: pure, the same on every engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from voice_saga.definition import Plan

State = Literal["running", "waiting", "compensating", "parked", "completed", "compensated", "abandoned"]
"""`waiting`: nothing to do until an event comes. `parked`: nothing is done until somebody resumes it."""
ENDED: frozenset[State] = frozenset({"completed", "compensated", "abandoned"})
EntryKind = Literal[
    "started",
    "began",
    "waiting",
    "succeeded",
    "failed",
    "compensating",
    "undoing",
    "undone",
    "parked",
    "left",
    "resumed",
    "completed",
    "compensated",
    "abandoned",
]
"""`left`: a worker that knows older versions alone leaves it to a newer one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition."""

    kind: EntryKind
    step: str = ""
    """The step it is about; empty where it is the saga."""
    data: Any = None
    """A step's result; the reason of what failed, was parked, resumed or abandoned."""
    at: float = 0.0
    """When it was written, in seconds since 1970, by the journal's clock; 0 until then."""
    age: float = field(default=0.0, compare=False)
    """Seconds since, when it was read."""


@dataclass(slots=True)
class Progress:
    """A saga between two entries."""

    state: State = "running"
    reason: str = ""
    resumes: State = "running"
    """The state that a parked saga resumes in."""
    began: dict[str, None] = field(default_factory=dict)
    """Steps that may have run."""
    waiting: dict[str, Entry] = field(default_factory=dict)
    """Steps whose outcome is to be delivered."""
    results: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    undoing: str = ""
    undone: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Progress:
        """The sum of a journal."""
        progress = cls()
        for entry in entries:
            progress.apply(entry)
        return progress

    def apply(self, entry: Entry) -> None:
        """Go on by one entry."""
        step = entry.step
        match entry.kind:
            case "began":
                self.began[step] = None
            case "waiting":
                self.waiting[step] = entry
            case "succeeded":
                self.waiting.pop(step, None)
                self.results[step] = entry.data
            case "failed":
                self.waiting.pop(step, None)
                self.failed[step] = entry.data
            case "undoing":
                self.undoing = step
            case "undone":
                self.undone.add(step)
                self.undoing = ""
            case _:
                self._turn(entry)

    def _turn(self, entry: Entry) -> None:
        """An entry that changes the saga's own state."""
        match entry.kind:
            case "compensating":
                self.state, self.reason = "compensating", str(entry.data)
                self.waiting.clear()
            case "parked":
                self.resumes, self.state, self.reason = self.state, "parked", str(entry.data)
            case "resumed":
                self.state = self.resumes
            case "abandoned":
                self.state, self.reason = "abandoned", str(entry.data)
            case "completed" | "compensated":
                self.state = entry.kind

    @property
    def running(self) -> list[str]:
        """Steps that have begun and have no outcome yet, whose action is to be executed."""
        if self.state != "running":
            return []
        return [step for step in self.began if step not in {*self.results, *self.failed, *self.waiting}]

    @property
    def shown(self) -> State:
        """The state that is told: running, with nothing to do but wait, is waiting."""
        return "waiting" if self.state == "running" and self.waiting and not self.running else self.state


def following(plan: Plan, progress: Progress) -> list[Entry]:
    """The entries that follow from where the saga is; none while something is still to happen."""
    if progress.state == "running" and not progress.running:
        if progress.failed:
            return _compensating(plan, progress)
        if not progress.waiting:
            return _next_stage(plan, progress)
    if progress.state == "compensating" and not progress.undoing:
        return _undoing(plan, progress)
    return []


def _next_stage(plan: Plan, progress: Progress) -> list[Entry]:
    for stage in plan.stages:
        if fresh := [Entry("began", step) for step in stage if step not in progress.began]:
            return fresh
    return [Entry("completed")]


def _compensating(plan: Plan, progress: Progress) -> list[Entry]:
    """In the order of the policy, whichever step failed first: the journal does not depend on scheduling."""
    reasons = "; ".join(f"{step}: {progress.failed[step]}" for step in plan.steps if step in progress.failed)
    return [Entry("compensating", data=reasons), *_undoing(plan, progress)]


def _undoing(plan: Plan, progress: Progress) -> list[Entry]:
    """The last step that may have run and is not undone. A step whose outcome is unknown may have run."""
    for step in reversed(plan.steps):
        if step in progress.began and step in plan.compensated and step not in progress.undone:
            return [Entry("undoing", step)]
    return [Entry("compensated")]
