"""Recording rules and alerts of Prometheus, as data that a rule file is written from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel, Duration

from components.operation import Name

__all__ = ["Alert", "Recording", "RuleGroup", "Severity"]

Severity = Literal["critical", "warning"]
"""`critical` wakes somebody; `warning` is read in working hours."""
Text = Annotated[str, Field(min_length=10, max_length=400)]
NOW = Duration("0s")


class Recording(ClosedModel):
    """A series that is computed at every evaluation, named `level:metric:operations` as Prometheus advises."""

    name: Annotated[str, Field(pattern=r"^[a-z_]+(:[a-z0-9_]+)+$")]
    expression: str
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that no other rule may have."""
        return self.name, *sorted(self.labels.items())

    def document(self) -> dict[str, Any]:
        """As a rule file says it."""
        labels = {"labels": self.labels} if self.labels else {}
        return {"record": self.name, "expr": self.expression, **labels}


class Alert(ClosedModel):
    """A condition that somebody must act on.

    Severity and team are the alert's own, or (`None`) labels that its series carry: those of the objective it is held
    against.
    """

    name: Annotated[str, Field(pattern=r"^([A-Z][a-z]+)+$", max_length=40)]
    expression: str
    lasting: Duration = NOW
    """How long the condition must hold (`for`)."""
    severity: Severity | None = None
    team: Name | None = None
    summary: Text
    """The symptom, with labels of the series in it."""
    action: Text
    """The first action: the runbook's entry."""

    @property
    def key(self) -> tuple[object, ...]:
        """A key that no other rule may have."""
        return self.name, self.severity

    def document(self) -> dict[str, Any]:
        """As a rule file says it."""
        own = {"severity": self.severity, "team": self.team}
        labels = {name: value for name, value in own.items() if value}
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": str(self.lasting)} if self.lasting else {}),
            **({"labels": labels} if labels else {}),
            "annotations": {"summary": self.summary, "action": self.action},
        }


class RuleGroup(ClosedModel):
    """Rules that are evaluated one after the other, so that each sees what those before it recorded."""

    name: Name
    rules: Annotated[tuple[Recording | Alert, ...], Field(min_length=1)]

    def document(self) -> dict[str, Any]:
        """As a rule file says it."""
        return {"name": self.name, "rules": [rule.document() for rule in self.rules]}
