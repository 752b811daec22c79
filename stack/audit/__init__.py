"""The audit: rules over the typed model and its graph of operations, one file for each family.

A rule is a `Rule` of `stack/audit/finding.py`: id, title, severity, rationale, source, an example that violates it, one
that just holds, and a check. The check is a pure function of the `Platform`, with the rendered resources of
`stack/audit/rendered.py` where it must. It yields `None` for each thing that holds and a `Breach` for each that does
not. `Rule.verdict` makes findings of the breaches.

A family is a module that ends in `RULES`. Adding a rule is adding it there, with its fixtures in the test of the same
name. Every check walks the graph once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from stack.audit import (
    availability,
    breakers,
    capacity,
    dependencies,
    egress,
    idle_connections,
    library_defaults,
    network,
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
from stack.model.profile import AcceptedFinding
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
)


def audit(platform: Platform) -> tuple[Verdict, ...]:
    """The verdict of every rule on one environment."""
    return tuple(rule.verdict(platform) for rule in RULES)


def audit_outcome(platform: Platform, *, on: date) -> Outcome:
    """The verdicts with what became of their findings: profile and file of the environment accept some until a day."""
    settings, verdicts = platform.environment.settings, audit(platform)
    by_profile: Iterable[AcceptedFinding] = platform.environment.profile.accepted_findings
    if settings.without or settings.external:
        # A node that is not deployed takes its findings with it.
        found = {(finding.rule, finding.path) for verdict in verdicts for finding in verdict.findings}
        by_profile = (entry for entry in by_profile if (entry.rule, entry.path) in found)
    return judge(file_of(settings.environment), verdicts, (*by_profile, *settings.accepted_findings), on=on)


__all__ = ["RULES", "audit_outcome"]
