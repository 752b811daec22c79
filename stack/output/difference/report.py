"""A difference as text, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from difflib import unified_diff
from typing import Any

from components.files import file_text
from stack.deploy.data_safety import INSTEAD
from stack.output.difference import Change, Difference
from stack.output.difference.fields import ABSENT, FieldChange
from stack.output.tree import LEDGER

__all__ = ["REPORTS"]

LINE = 300
"""Longest mapping or list on one line, in characters. A rule of a NetworkPolicy fits."""
_FENCE = "~~~~"
"""Fence of Markdown code blocks. No manifest contains it."""


def text(difference: Difference) -> str:
    """Text for a terminal and for `grep`: the blast radius first."""
    radius = list(_radius_lines(difference))
    lines = ["blast radius", *(f"  {line}" for line in radius)] if radius else []
    lines += [f"+ {identity}" for identity in difference.added]
    lines += [f"- {identity}" for identity in difference.removed]
    for change in difference.changed:
        lines += [_head(change), *(f"    {line}" for line in _field_lines(change))]
    return "\n".join([*lines, *map(str, difference.data_at_risk), _summary(difference)])


def markdown(difference: Difference) -> str:
    """Markdown for a pull request: the summary, the blast radius, and the fields folded."""
    parts = [_summary(difference)]
    if radius := [*_radius_lines(difference), *map(str, difference.data_at_risk)]:
        parts.append("\n".join(["**Blast radius**", "", *(f"- {line}" for line in radius)]))
    whole = [f"+ {identity}" for identity in difference.added] + [f"- {identity}" for identity in difference.removed]
    if whole:
        parts.append(_folded(f"{len(whole)} resources added or removed", whole))
    parts += [_folded(_head(change), list(_field_lines(change))) for change in difference.changed]
    return "\n\n".join(parts)


def as_json(difference: Difference) -> str:
    """The complete difference as JSON."""
    return file_text(
        {
            "blast_radius": _radius_documents(difference),
            "added": [identity._asdict() for identity in difference.added],
            "removed": [identity._asdict() for identity in difference.removed],
            "changed": [
                {
                    **change.identity._asdict(),
                    "replaced": change.replaces,
                    "fields": [_field_document(field) for field in change.fields],
                }
                for change in difference.changed
            ],
            "effects": [
                {**effect.workload._asdict(), "pods": effect.pods, "because": effect.because}
                for effect in difference.effects
            ],
            "data_at_risk": [
                {**risk.identity._asdict(), "loss": risk.loss, "instead": INSTEAD[risk.loss]}
                for risk in difference.data_at_risk
            ],
        }
    ).rstrip()


def _summary(difference: Difference) -> str:
    if not difference:
        return "no differences"
    pods = [effect.pods for effect in difference.effects]
    return (
        f"{len(difference.added)} added, {len(difference.removed)} removed, {len(difference.changed)} changed; "
        f"restarts: {pods.count('restart')}, reloads: {pods.count('reload')}, "
        f"data at risk: {len(difference.data_at_risk)}"
    )


def _head(change: Change) -> str:
    return f"~ {change.identity}{' (replaced)' if change.replaces else ''}"


def _radius_lines(difference: Difference) -> Iterator[str]:
    """The changed numbers, then the pods that restart, then the pods that only reload."""
    if difference.blast_radius is None:
        yield f"attempts, availability, connections and cost are not compared: a side has no {LEDGER}"
    else:
        yield from (consequence.text for consequence in difference.blast_radius)
    for effect in sorted(difference.effects, key=lambda effect: effect.pods == "reload"):
        yield f"{effect.workload}: pods {effect.pods}, because {effect.because}"


def _radius_documents(difference: Difference) -> list[dict[str, Any]] | None:
    if difference.blast_radius is None:
        return None
    return [{**asdict(consequence), "text": consequence.text} for consequence in difference.blast_radius]


def _field_lines(change: Change) -> Iterator[str]:
    """A line for each field. If a value has several lines: a diff."""
    for field in change.fields:
        before, after = _lines(field.before), _lines(field.after)
        if max(len(before), len(after)) > 1:
            yield f"{field.path}:"
            hunks = unified_diff(before, after, lineterm="", n=1)
            yield from (f"    {line}" for line in list(hunks)[2:])
        else:
            yield f"{field.path}: {''.join(before) or '(absent)'} -> {''.join(after) or '(absent)'}"


def _lines(value: object) -> list[str]:
    if value is ABSENT:
        return []
    if isinstance(value, str) and value.strip():
        return value.splitlines()
    line = json.dumps(value, ensure_ascii=False)
    is_long = len(line) > LINE and not isinstance(value, str)
    return json.dumps(value, ensure_ascii=False, indent=2).splitlines() if is_long else [line]


def _field_document(field: FieldChange) -> dict[str, Any]:
    sides = {"before": field.before, "after": field.after}
    return {"path": field.path, **{side: value for side, value in sides.items() if value is not ABSENT}}


def _folded(title: str, lines: list[str]) -> str:
    return "\n".join([f"<details><summary>{title}</summary>", "", f"{_FENCE}diff", *lines, _FENCE, "", "</details>"])


REPORTS: Mapping[str, Callable[[Difference], str]] = {"text": text, "json": as_json, "markdown": markdown}
