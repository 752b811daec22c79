"""The audit: rules over the typed model and its graph of operations, one file for each family.

A family is a module that ends in `RULES`; adding a rule is adding it there. Every rule walks the graph once.
"""

from __future__ import annotations

from stack.audit import availability, capacity, egress, network, retries, structure, timeouts
from stack.audit.finding import Rule, Verdict
from stack.model.platform import Platform

RULES: tuple[Rule, ...] = (
    *structure.RULES,
    *retries.RULES,
    *timeouts.RULES,
    *availability.RULES,
    *capacity.RULES,
    *network.RULES,
    *egress.RULES,
)


def audit(platform: Platform) -> tuple[Verdict, ...]:
    """The verdict of every rule on one environment."""
    return tuple(rule.verdict(platform) for rule in RULES)


__all__ = ["audit"]
