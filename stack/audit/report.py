"""The audit's outcome for people and programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from components.files import file_text
from stack.audit.finding import Finding, Verdict

__all__ = ["REPORTS"]


def text(verdicts: Sequence[Verdict]) -> str:
    """A line for each rule, and below it a line for each finding."""
    lines = []
    for verdict in verdicts:
        lines.append(f"{verdict.rule.id}  {verdict.text:<14}  {verdict.rule.title} ({verdict.checked} checked)")
        lines += [f"     {_line(finding)}" for finding in verdict.findings]
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    proposal = f"; would hold: {finding.proposal}" if finding.proposal else ""
    return f"{finding.severity}: {finding.path}: {finding.arithmetic}; change {finding.field}{proposal}"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A table of rules, then a table of findings if there are any."""
    rows = ["| rule | verdict | checked | what | source |", "|---|---|---|---|---|"]
    rows += [f"| {v.rule.id} | {v.text} | {v.checked} | {v.rule.title} | {v.rule.source} |" for v in verdicts]
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    if findings:
        rows += ["", "| rule | severity | path | arithmetic | change | would hold |", "|---|---|---|---|---|---|"]
        rows += [
            f"| {f.rule} | {f.severity} | {f.path} | {f.arithmetic} | {f.field} | {f.proposal} |" for f in findings
        ]
    return "\n".join(rows)


def json(verdicts: Sequence[Verdict]) -> str:
    """Every rule with its findings."""
    rules = [
        {
            "rule": verdict.rule.id,
            "title": verdict.rule.title,
            "source": verdict.rule.source,
            "verdict": verdict.text,
            "checked": verdict.checked,
            "findings": [asdict(finding) for finding in verdict.findings],
        }
        for verdict in verdicts
    ]
    return file_text({"rules": rules}).rstrip()


REPORTS: dict[str, Callable[[Sequence[Verdict]], str]] = {"text": text, "markdown": markdown, "json": json}
