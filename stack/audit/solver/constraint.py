"""A constraint that no values satisfy."""

from __future__ import annotations

from typing import NamedTuple

from components.declaration import Location


class Constraint(NamedTuple):
    """A bound of a rule that cannot hold: even the smallest possible value is above the bound."""

    rule: str
    path: str
    """The flow, call, operation, saga step or service that the rule bounds."""
    bound: str
    """The bound, from the catalogue or from the rule itself."""
    needed: str
    """The least bound that would be feasible."""
    why: str
    """The arithmetic of the least possible value."""
    field: str
    """The part of the catalogue to change."""
    where: Location | None = None
