"""A solution as text and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from components.files import file_text
from stack.audit.solver import Solution
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.values import Change

__all__ = ["REPORTS"]


def text(solution: Solution) -> str:
    """The parts of the solution that are not empty, each under a title, and a verdict."""
    parts = {
        "change": [line for change in solution.changes for line in _change_lines(change)],
        "rendered values that change as a consequence": [f"  {_change(change)}" for change in solution.following],
        "infeasible": [line for bound in solution.infeasible for line in _constraint_lines(bound)],
        "refused": [f"  {fault}" for fault in solution.refused],
        "remains": [f"  {found.rule}  {found.path}: {found.arithmetic}" for found in solution.remaining],
    }
    lines = [line for title, found in parts.items() if found for line in (title, *found)]
    return "\n".join([*lines, f"{solution.platform.environment.name}: {_verdict(solution)}"])


def _change_lines(change: Change) -> Iterator[str]:
    yield f"  {_change(change)}"
    if change.where:
        yield f"     {change.where}"


def _change(change: Change) -> str:
    return f"{change.path}: {change.field} {change.old} → {change.new}"


def _constraint_lines(bound: Constraint) -> Iterator[str]:
    yield f"  {bound.rule}  {bound.path}: {bound.why}"
    where = f" ({bound.where})" if bound.where else ""
    yield f"     bound {bound.bound}, needed {bound.needed}: change {bound.field}{where}"


def _verdict(solution: Solution) -> str:
    if solution.infeasible:
        return "no values satisfy every T, C and R rule"
    if solution.remaining or solution.refused:
        return "these values are not enough: the catalogue needs other changes, too"
    if solution.changes:
        return "with these values the T, C and R rules hold"
    return "the T, C and R rules hold; nothing to change"


def as_json(solution: Solution) -> str:
    """The complete solution."""
    document: dict[str, Any] = {
        "environment": solution.platform.environment.name,
        "changes": [_document(change) for change in solution.changes],
        "following": [_document(change) for change in solution.following],
        "infeasible": [_document(bound) for bound in solution.infeasible],
        "refused": [str(fault) for fault in solution.refused],
        "remaining": [
            {"rule": found.rule, "path": found.path, "arithmetic": found.arithmetic} for found in solution.remaining
        ],
    }
    return file_text(document).rstrip()


def _document(found: Change | Constraint) -> dict[str, Any]:
    return {**found._asdict(), "where": str(found.where) if found.where else None}


REPORTS: dict[str, Callable[[Solution], str]] = {"text": text, "json": as_json}
