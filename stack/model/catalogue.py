"""A tenant's nodes, flows and rules as data, placed on its site."""

from __future__ import annotations

from pydantic import Field
from voice_policies import ClosedModel

from components.node import Node
from stack.model.flow import Flow
from stack.model.site import Site

__all__ = ["Catalogue"]


class Catalogue(ClosedModel):
    """The declared services, dependencies and gateway. A call that none of them declares is forbidden."""

    source: str
    """Where the catalogue stands in the repository, for error messages."""
    site: Site
    nodes: tuple[Node, ...]
    flows: tuple[Flow, ...] = ()
    only_callers: dict[str, str] = Field(default_factory=dict)
    """Callee → the one caller that it may have."""
    forbidden: frozenset[tuple[str, str]] = frozenset()
    """Pairs of caller and callee that may never talk."""
