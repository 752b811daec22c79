"""The audit of Kubernetes manifests that nobody has a typed model of.

Manifests tell no operations, loads, objectives or clients' policies. So these rules look at what stands in the files
and what is certain from it; where something else may be true, they are silent.
"""

from __future__ import annotations

from datetime import date

from stack.audit.finding import Rule
from stack.audit.manifests import addresses, mesh, scaling, workloads
from stack.audit.outcome import Outcome, judge
from stack.model.manifests.system import System

RULES: tuple[Rule[System], ...] = (
    *mesh.RULES,
    *workloads.RULES,
    *scaling.RULES,
    *addresses.RULES,
)


def audit_manifests(system: System, *, on: date) -> Outcome:
    """The verdicts on a directory of manifests."""
    return judge(system.source, [rule.verdict(system) for rule in RULES], on=on)


__all__ = ["audit_manifests"]
