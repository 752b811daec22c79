"""The audit: rules over the typed model and its graph of operations, one file for each family.

A rule is a `Rule` of `stack/audit/finding.py`: id, title, severity, rationale, source, an example that violates it, one
that just holds, and a check. The check is a pure function of the `Platform`, with the rendered resources of
`stack/audit/rendered.py` where it must. It yields `None` for each thing that holds and a `Breach` for each that does
not. `Rule.verdict` makes findings of the breaches.

A family is a module that ends in `RULES`. Adding a rule is adding it there, with its fixtures in the test of the same
name. Every check walks the graph once.
"""

from __future__ import annotations

from datetime import date

from stack.audit import (
    alerts,
    availability,
    breakers,
    capacity,
    connectivity,
    cost,
    dependencies,
    egress,
    idle_connections,
    library_defaults,
    network,
    objectives,
    pod_security,
    retries,
    retry_policies,
    rollouts,
    scaling,
    structure,
    timeouts,
    volumes,
)
from stack.audit.finding import Rule, Verdict
from stack.audit.outcome import Outcome, judge
from stack.model.platform import Platform
from stack.model.settings import file_of

RULES: tuple[Rule, ...] = (
    *structure.RULES,
    *retries.RULES,
    *retry_policies.RULES,
    *library_defaults.RULES,
    *timeouts.RULES,
    *idle_connections.RULES,
    *rollouts.RULES,
    *breakers.RULES,
    *dependencies.RULES,
    *availability.RULES,
    *capacity.RULES,
    *scaling.RULES,
    *network.RULES,
    *egress.RULES,
    *volumes.RULES,
    *connectivity.RULES,
    *cost.RULES,
    *alerts.RULES,
    *objectives.RULES,
    *pod_security.RULES,
)


def audit(platform: Platform) -> tuple[Verdict, ...]:
    """The verdict of every rule on one environment."""
    return tuple(rule.verdict(platform) for rule in RULES)


def audit_outcome(platform: Platform, *, on: date) -> Outcome:
    """The verdicts with what became of their findings: profile and file of the environment accept some until a day."""
    environment, verdicts = platform.environment, audit(platform)
    # A profile serves environments that leave nodes out or have pinned their images: they lack some of its findings.
    found = {(finding.rule, finding.path) for verdict in verdicts for finding in verdict.findings}
    by_profile = (entry for entry in environment.profile.accepted_findings if (entry.rule, entry.path) in found)
    accepted = (*by_profile, *environment.settings.accepted_findings)
    return judge(file_of(environment.name), verdicts, accepted, on=on)


__all__ = ["RULES", "audit_outcome"]
