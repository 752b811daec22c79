"""The platform team, and a function that creates its alerts."""

from __future__ import annotations

from voice_policies import Duration

from components.observability.rules import Alert, Severity

__all__ = ["PLATFORM_TEAM", "WATCHDOG", "platform_alert"]

PLATFORM_TEAM = "platform"
"""The team that runs cluster, datastores, gateway and observability."""
WATCHDOG = "watchdog"
"""Receiver outside the platform. It raises an alarm if the alert Watchdog stops."""


def platform_alert(name: str, severity: Severity, expression: str, lasting: str, summary: str, action: str) -> Alert:
    """An alert of the platform's team. The expression must hold for `lasting`, such as `10m`."""
    return Alert(
        name=name,
        severity=severity,
        team=PLATFORM_TEAM,
        expression=expression,
        lasting=Duration(lasting),
        summary=summary,
        action=action,
    )
