"""The audit: rules over the typed model and its graph of operations. Each subject has one module of rules.

A rule is a `Rule` of `stack/audit/finding.py`. It has an id, title, severity, rationale, source and check. It also has
an example that violates the rule, and an example that follows the rule.

`check` is a pure function of the `Platform`. `check_on` also depends on the day of the audit. Some checks read the
rendered resources (`stack/audit/rendered.py`). A check yields `None` for each item that passes and a `Breach` for each
item that fails. `Rule.verdict` turns the breaches into findings.

Each module defines `RULES`. To add a rule, append the rule to `RULES` and add the rule's fixtures to the
module's test file.
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
    mesh,
    model_policies,
    model_times,
    model_tokens,
    network,
    objectives,
    pod_security,
    references,
    retries,
    retry_policies,
    rollouts,
    scaling,
    structure,
    timeouts,
    volumes,
)
from stack.audit.finding import Rule, Verdict
from stack.audit.locations import located
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
    *references.RULES,
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
    *mesh.RULES,
    *model_policies.RULES,
    *model_times.RULES,
    *model_tokens.RULES,
)


def audit(platform: Platform, *, on: date) -> tuple[Verdict, ...]:
    """The verdict of every rule on one environment, as of a day."""
    return tuple(located(platform, (rule.verdict(platform, on) for rule in RULES)))


def audit_outcome(platform: Platform, *, on: date) -> Outcome:
    """Audit an environment, and apply the accepted findings of its profile and of its settings file."""
    environment, verdicts = platform.environment, audit(platform, on=on)
    # Environments with the same profile may have different findings: one may leave out a node or pin its images. So the
    # profile may accept a finding that this environment lacks. If the settings file does so, the audit fails.
    found = {(finding.rule, finding.path) for verdict in verdicts for finding in verdict.findings}
    by_profile = (entry for entry in environment.profile.accepted_findings if (entry.rule, entry.path) in found)
    accepted = (*by_profile, *environment.settings.accepted_findings)
    return judge(file_of(environment.name), verdicts, accepted, on=on)


__all__ = ["RULES", "audit_outcome"]
