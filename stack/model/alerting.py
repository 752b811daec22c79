"""The alerts of a tenant, and the teams that they go to."""

from __future__ import annotations

from voice_policies import ClosedModel

from components.node import Service, Tier
from components.observability.rules import Alert, Severity

__all__ = ["Alerting"]


class Alerting(ClosedModel):
    """Alerts with their receivers, as `docs/runbook/` lists them."""

    source: str
    """Path in the repository at which the alerts are declared."""
    objective_alerts: tuple[Alert, ...]
    """Alerts on a declared objective. The objective determines the team, and the severity if the alert sets none."""
    platform_alerts: tuple[Alert, ...]
    """Alerts with a severity and a team of their own."""
    store_alerts: dict[str, tuple[Alert, ...]]
    """Store → the platform alerts on the store's metrics."""
    severities: dict[Tier, Severity]
    """Tier of a service → the severity of its alerts."""
    teams: dict[str, tuple[Service, ...]]
    """Team → the services that it owns."""
    platform_team: str
    """Team that owns everything else."""
