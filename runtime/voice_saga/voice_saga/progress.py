"""Computes a saga's progress from its journal, and the next entries from the progress.

Every engine uses these functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from voice_saga.context import checked_size, size_of
from voice_saga.definition import Plan
from voice_saga.errors import TooLargeError

State = Literal["running", "waiting", "compensating", "parked", "completed", "compensated", "abandoned"]
"""The state of a saga. `waiting`: no action runs, and a step waits for its outcome. `parked`: the saga stops until an
operator resumes, compensates or abandons it."""
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
"""The kind of a transition. `left`: a worker that knows only older versions leaves the saga to a worker with a newer
version."""
INTERVENTIONS: dict[EntryKind, tuple[str, tuple[State, ...]]] = {
    "resumed": ("resumed", ("parked",)),
    "compensating": ("compensated", ("running", "waiting", "parked")),
    "abandoned": ("abandoned", ("running", "waiting", "compensating", "parked")),
}
"""Kind of the entry that an intervention writes → the verb for messages, and the states that allow the intervention."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition."""

    kind: EntryKind
    step: str = ""
    """The step. Empty for an entry about the saga itself."""
    data: Any = None
    """A step's result, or the reason of a failure, a compensation, a parking, a resumption or an abandonment."""
    at: float = 0.0
    """Time of the write in seconds since 1970, by the journal's clock. 0 before the write."""
    age: float = field(default=0.0, compare=False)
    """Seconds from the write to the read."""


@dataclass(slots=True)
class Progress:
    """The progress of a saga after some of its entries."""

    state: State = "running"
    reason: str = ""
    resumes: State = "running"
    """The state in which a parked saga resumes."""
    began: int = 0
    """Number of steps that have begun."""
    to_undo: list[str] = field(default_factory=list)
    """Steps that may have run and were not undone, in the order of their start."""
    acting: dict[str, None] = field(default_factory=dict)
    """Steps that have begun, have not ended, and do not wait for an outcome. In a running saga their actions run."""
    waiting: dict[str, Entry] = field(default_factory=dict)
    """Steps that wait for an outcome."""
    results: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    """Bytes of all results as JSON."""
    failed: dict[str, str] = field(default_factory=dict)
    undoing: str = ""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Progress:
        """The progress after all entries of a journal."""
        progress = cls()
        for entry in entries:
            progress.apply(entry)
        return progress

    def apply(self, entry: Entry) -> None:
        """Apply one entry."""
        step = entry.step
        match entry.kind:
            case "began":
                self.began += 1
                self.to_undo.append(step)
                self.acting[step] = None
            case "waiting":
                self.acting.pop(step, None)
                self.waiting[step] = entry
            case "succeeded":
                self._ended(step)
                self.results[step] = entry.data
                self.size += size_of(entry.data, f"the result of {step}")
            case "failed":
                self._ended(step)
                self.failed[step] = entry.data
            case "undoing":
                self.undoing = step
            case "undone":
                while self.to_undo.pop() != step:
                    continue  # also drops later steps, which have no compensation
                self.undoing = ""
            case _:
                self._turn(entry)

    def _ended(self, step: str) -> None:
        self.acting.pop(step, None)
        self.waiting.pop(step, None)

    def _turn(self, entry: Entry) -> None:
        """Apply an entry about the saga itself. `started` and `left` change nothing."""
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
        """Steps whose actions must run now. Empty unless the saga is running."""
        return list(self.acting) if self.state == "running" else []

    @property
    def shown(self) -> State:
        """The state that users see: `waiting` for a running saga whose unfinished steps all wait."""
        return "waiting" if self.state == "running" and self.waiting and not self.running else self.state


def refusal(kind: EntryKind, state: State) -> str:
    """The reason why a saga in `state` refuses an intervention. Empty if the intervention is allowed."""
    word, allowed = INTERVENTIONS[kind]
    return "" if state in allowed else f"is {state}: it cannot be {word} now; expected {' or '.join(allowed)}"


def following(plan: Plan, progress: Progress) -> list[Entry]:
    """The entries that follow from the current progress.

    Empty in each of these cases:
    - The saga is running, and an action runs.
    - The saga is running, steps wait and no step has failed.
    - A compensation runs.
    - The saga is parked or has ended.
    """
    if progress.state == "running" and not progress.running:
        if progress.failed:
            return _compensating(plan, progress)
        if not progress.waiting:
            return _next_stage(plan, progress)
    if progress.state == "compensating" and not progress.undoing:
        return _undoing(plan, progress)
    return []


def _next_stage(plan: Plan, progress: Progress) -> list[Entry]:
    """The entries that begin the next stage, or that complete the saga.

    All steps of a stage begin together, so the number of steps that have begun determines the next stage.
    """
    stage = plan.after.get(progress.began)
    return [Entry("began", step) for step in stage] if stage else [Entry("completed")]


def _compensating(plan: Plan, progress: Progress) -> list[Entry]:
    """The entries that begin the compensation, with the reasons of all failed steps.

    The reasons are in the order of the steps in the policy, not in the order of the failures.
    """
    reasons = "; ".join(f"{step}: {progress.failed[step]}" for step in plan.steps if step in progress.failed)
    return [Entry("compensating", data=reasons), *_undoing(plan, progress)]


def _undoing(plan: Plan, progress: Progress) -> list[Entry]:
    """The entry that begins the next compensation, or that ends the saga.

    The next compensation undoes the last of the steps in `to_undo` that have a compensation. A step with an unknown
    outcome is in `to_undo` too, because it may have run.
    """
    last = next((step for step in reversed(progress.to_undo) if step in plan.compensated), None)
    return [Entry("compensated") if last is None else Entry("undoing", last)]


def ended(step: str, result: Any, error: str | None, room: int) -> Entry:
    """The entry for a delivered outcome. If the result takes more than `room` bytes, the step fails."""
    if error is None:
        try:
            checked_size(size_of(result, f"the outcome of {step}"), room, f"the outcome of {step}")
        except TooLargeError as refusal:
            error = str(refusal)
    return Entry("succeeded", step, result) if error is None else Entry("failed", step, error)
