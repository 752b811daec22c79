"""Prometheus's recording rules and alerts as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel, Duration, TextPattern

from components.operation import Name

__all__ = ["Alert", "Recording", "RuleGroup", "Severity"]

Severity = Literal["critical", "warning"]
"""`critical` pages a person. `warning` is read in working hours."""
Text = Annotated[str, Field(min_length=10, max_length=400)]
NOW = Duration("0s")


class Recording(ClosedModel):
    """A series that Prometheus computes at every evaluation.

    Its name is `level:metric:operations`, as Prometheus advises.
    """

    name: Annotated[str, TextPattern(r"^[a-z_]+(:[a-z0-9_]+)+$", "job:requests:rate5m")]
    expression: str
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> tuple[object, ...]:
        """A key that identifies the rule."""
        return self.name, *sorted(self.labels.items())

    def document(self, _runbook: str) -> dict[str, Any]:
        """The rule in a rule file. It has no link to the runbook, which explains only alerts."""
        labels = {"labels": self.labels} if self.labels else {}
        return {"record": self.name, "expr": self.expression, **labels}


class Alert(ClosedModel):
    """A condition that needs a person's action.

    If `severity` or `team` is `None`, the alert gets this label from the series in its expression.
    """

    name: Annotated[str, TextPattern(r"^([A-Z][a-z]+)+$", "TargetDown", 40)]
    expression: str
    lasting: Duration = NOW
    """Time for which the condition must hold (`for`)."""
    severity: Severity | None = None
    team: Name | None = None
    summary: Text
    """The symptom, as a template with labels of the series."""
    action: Text
    """The first action to take."""

    @property
    def key(self) -> tuple[object, ...]:
        """A key that identifies the rule."""
        return self.name, self.severity

    @property
    def anchor(self) -> str:
        """The section of the runbook that explains the alert. Alerts with the same name share a section."""
        return self.name.lower()

    def document(self, runbook: str) -> dict[str, Any]:
        """The alert in a rule file. `runbook` is the address of the page whose sections explain the alerts."""
        own = {"severity": self.severity, "team": self.team}
        labels = {name: value for name, value in own.items() if value}
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": str(self.lasting)} if self.lasting else {}),
            **({"labels": labels} if labels else {}),
            "annotations": {
                "summary": self.summary,
                "action": self.action,
                "runbook_url": f"{runbook}#{self.anchor}",
            },
        }


class RuleGroup(ClosedModel):
    """Rules that Prometheus evaluates in order. Each rule sees the results of the rules before it."""

    name: Name
    rules: Annotated[tuple[Recording | Alert, ...], Field(min_length=1)]
    interval: Duration | None = None
    """Time between two evaluations. `None`: Prometheus's global `evaluation_interval`."""

    def document(self, runbook: str) -> dict[str, Any]:
        """The group in a rule file, with links to the page `runbook`."""
        interval = {"interval": str(self.interval)} if self.interval else {}
        return {"name": self.name, **interval, "rules": [rule.document(runbook) for rule in self.rules]}
