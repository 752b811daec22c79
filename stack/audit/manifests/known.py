"""Rules that the audit of the model and the audit of manifests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from stack.audit import RULES
from stack.audit.finding import Breach, Rule
from stack.model.manifests.system import System

Check = Callable[[System], Iterable[Breach | None]]


def on_manifests(rule_id: str, check: Check) -> Rule[System]:
    """The audit's rule with this id, with a check that reads manifests instead of the typed model."""
    known: Rule[Any] = next(rule for rule in RULES if rule.id == rule_id)
    return replace(known, check=check)
