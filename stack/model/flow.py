"""A flow that users see, with its targets. Diagrams, load scenarios and latency budgets are computed from flows."""

from __future__ import annotations

from typing_extensions import override
from voice_policies import ClosedModel, Duration, Ratio

from components.declaration import Declaration
from components.operation import Name, Sentence

__all__ = ["Flow", "Milestone"]


class Milestone(ClosedModel):
    """A part of a streamed answer, with a target of its own. For example, the first audio."""

    title: Sentence
    operation: str
    """The operation that yields the part, as `node.operation`."""
    first_stage: bool = False
    """True if the first stage of the operation yields the part. Otherwise the whole operation yields it."""
    target: Duration
    """P95 target, measured from the start of the operation."""


class Flow(Declaration):
    """A path through the platform that begins at a route of the gateway."""

    name: Name
    title: Sentence
    route: Name
    latency: Duration
    """P95 target at the gateway."""
    availability: Ratio | None = None
    """Availability target of the flow, with all its hard dependencies. `None` if the flow has no target."""
    diagram: bool = False
    """True if the documents draw a sequence diagram of the flow."""
    continues: str | None = None
    """The background operation, as `service.operation`, that completes the flow after the route has answered."""
    milestones: tuple[Milestone, ...] = ()

    @property
    @override
    def label(self) -> str:
        return f"flows.{self.name}"
