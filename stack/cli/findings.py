"""The audit's outcome as text: short findings, the most severe first, and one final line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from stack.audit.finding import Severity
from stack.audit.outcome import Judged, Outcome
from stack.audit.report import acceptance_text
from stack.cli.terminal import BOLD, GREEN, RED, YELLOW, coloured, wrapped

COLOURS: dict[Severity, tuple[str, ...]] = {"critical": (BOLD, RED), "error": (RED,), "warning": (YELLOW,), "info": ()}
INDENT = " " * 5


def text(name: str, outcome: Outcome) -> str:
    """The findings by severity, the accepted findings, acceptances that match no finding, and a line with counts."""
    accepted = [each for each in outcome.judged if each.accepted]
    unaccepted = [each for each in outcome.judged if not each.accepted]
    lines: list[str] = []
    for severity, group in groupby(unaccepted, key=lambda each: each.finding.severity):
        findings = list(group)
        lines.append(coloured(f"{severity} ({len(findings)})", *COLOURS[severity], BOLD))
        lines += [line for each in findings for line in _lines(each)]
    if accepted:
        lines.append(coloured(f"accepted ({len(accepted)})", BOLD))
        lines += [_indented(f"{each.finding.rule}  {each.finding.path}: {acceptance_text(each)}") for each in accepted]
    lines += [
        _indented(
            f"{entry.rule}  {entry.path}: accepted in {outcome.source}, but there is no such finding:"
            " remove the acceptance"
        )
        for entry in outcome.unused
    ]
    return "\n".join([*lines, coloured(f"{name}: {_counts(outcome)}", RED if outcome.fails else GREEN)])


def _lines(judged: Judged) -> Iterator[str]:
    """A finding: rule, place, reason, and the change that fixes it."""
    finding = judged.finding
    yield wrapped(f"{coloured(finding.rule, *COLOURS[finding.severity])}  {finding.path}", INDENT)
    yield _indented(finding.arithmetic)
    proposal = f"; proposal: {finding.proposal}" if finding.proposal else ""
    where = f" ({finding.where})" if finding.where else ""
    yield _indented(f"change {finding.field}{proposal}{where}")
    if judged.expired:
        yield _indented(acceptance_text(judged))


def _indented(line: str) -> str:
    return wrapped(INDENT + line, INDENT)


def _counts(outcome: Outcome) -> str:
    """The numbers of findings by severity, acceptances by state, and rules by verdict, without zeros."""
    severities = Counter(each.finding.severity for each in outcome.judged if not each.accepted)
    verdicts = Counter(verdict.text for verdict in outcome.verdicts)
    counts = {
        **{f"{severity}s" if count > 1 else severity: count for severity, count in severities.items()},
        "accepted": sum(each.accepted for each in outcome.judged),
        "with an expired acceptance": sum(each.expired for each in outcome.judged),
        f"acceptance{'s' * (len(outcome.unused) > 1)} without a finding": len(outcome.unused),
        "rule holds" if verdicts["holds"] == 1 else "rules hold": verdicts["holds"],
        "does not apply" if verdicts["does not apply"] == 1 else "do not apply": verdicts["does not apply"],
    }
    return ", ".join(f"{count} {noun}" for noun, count in counts.items() if count)
