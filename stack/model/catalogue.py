"""The catalogue: a tenant's declared nodes and flows, and its forbidden calls."""

from __future__ import annotations

from pydantic import Field
from voice_policies import ClosedModel

from components.node import Node
from stack.model.flow import Flow
from stack.model.site import Site

__all__ = ["Catalogue"]


class Catalogue(ClosedModel):
    """The declared services, dependencies and gateway. Every call that is not declared is forbidden."""

    source: str
    """Path of the catalogue in the repository, for error messages."""
    site: Site
    nodes: tuple[Node, ...]
    flows: tuple[Flow, ...] = ()
    only_callers: dict[str, str] = Field(default_factory=dict)
    """Callee → its only permitted caller."""
    forbidden: frozenset[tuple[str, str]] = frozenset()
    """Pairs of caller and callee. The model refuses a catalogue with a call from such a caller to such a callee."""
