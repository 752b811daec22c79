"""The audit of Kubernetes manifests without a typed model.

Manifests contain no operations, loads, objectives or client policies. So these rules report only breaches that
the files prove. If a breach depends on something outside the files, the rules report nothing.
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
    """Audit a system that manifests describe."""
    return judge(system.source, [rule.verdict(system, on) for rule in RULES], on=on)


__all__ = ["audit_manifests"]
