"""A target of the platform, with the metrics and alerts that measure it in operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from typing_extensions import override
from voice_policies import ClosedModel

from components.observability.dashboards import Panel
from components.operation import Sentence

__all__ = ["Target"]


class Target(ClosedModel):
    """A promise to users, in words. Series, an objective and alerts measure whether it is kept."""

    title: Sentence
    target: Sentence
    series: tuple[str, ...] = ()
    """Recorded series of the measured values."""
    objective: str | None = None
    """Recorded series that holds the objective."""
    alerts: tuple[str, ...] = ()
    """Names of the alerts that fire when the target is missed."""
    panels: tuple[Panel, ...] = ()
    """Panels of the overview dashboard."""
    instead: Annotated[str, Field(min_length=10)] | None = None
    """How the target is checked, if no series measures it."""

    @override
    def conflicts(self) -> Iterator[str]:
        judged = bool(self.series and self.objective and self.alerts and self.panels)
        if judged == (self.instead is not None):
            yield "give either series, objective, alerts and panels together, or `instead`: how the target is checked"
