"""The audit's outcome as JSON, SARIF and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from components.files import file_text
from stack.audit.finding import Verdict
from stack.audit.outcome import Judged, Outcome
from stack.audit.sarif import sarif_log

__all__ = ["REPORTS", "acceptance_text"]


def acceptance_text(judged: Judged) -> str:
    """The acceptance of a finding as text. Empty if nobody accepted the finding."""
    if judged.acceptance is None:
        return ""
    state = "the acceptance expired on" if judged.expired else "accepted until"
    return f"{state} {judged.acceptance.expires}: {judged.acceptance.reason}"


def markdown(outcome: Outcome) -> str:
    """A table of findings if there are any, then a table of rules."""
    return "\n".join([*_finding_rows(outcome), *_rule_rows(outcome)])


def _finding_rows(outcome: Outcome) -> Iterator[str]:
    if outcome.judged:
        yield "| severity | rule | path | arithmetic | change | proposal | declared in | acceptance |"
        yield "|---|---|---|---|---|---|---|---|"
        for judged in outcome.judged:
            found = judged.finding
            cells = (found.severity, found.rule, found.path, found.arithmetic, found.field, found.proposal)
            yield markdown_row(*cells, str(found.where or ""), acceptance_text(judged))
        yield ""


def _rule_rows(outcome: Outcome) -> Iterator[str]:
    yield from ("| rule | verdict | checked | title | source |", "|---|---|---|---|---|")
    for verdict in outcome.verdicts:
        yield markdown_row(verdict.rule.id, verdict.text, str(verdict.checked), verdict.rule.title, verdict.rule.source)


def markdown_row(*cells: str) -> str:
    """A row of a table. Bars and line breaks in cells are replaced, because they end a cell or the row."""
    escaped = (" ".join(cell.replace("|", r"\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def json(outcome: Outcome) -> str:
    """Every rule with its findings, and every acceptance that matches no finding."""
    accepted = {id(judged.finding): judged for judged in outcome.judged}
    rules = [_rule_document(verdict, accepted) for verdict in outcome.verdicts]
    unused = [entry.model_dump() for entry in outcome.unused]
    return _text({"source": outcome.source, "rules": rules, "unused_acceptances": unused})


def _rule_document(verdict: Verdict, judged: Mapping[int, Judged]) -> dict[str, Any]:
    return {
        "rule": verdict.rule.id,
        "title": verdict.rule.title,
        "source": verdict.rule.source,
        "verdict": verdict.text,
        "checked": verdict.checked,
        "findings": [_finding_document(judged[id(finding)]) for finding in verdict.findings],
    }


def _finding_document(judged: Judged) -> dict[str, Any]:
    acceptance = judged.acceptance.model_dump() if judged.acceptance else None
    where = str(judged.finding.where) if judged.finding.where else None
    return {**asdict(judged.finding), "where": where, "acceptance": acceptance, "expired": judged.expired}


def sarif(outcome: Outcome) -> str:
    """A SARIF 2.1.0 log."""
    return _text(sarif_log(outcome))


def _text(document: dict[str, Any]) -> str:
    return file_text(document).rstrip()


REPORTS: dict[str, Callable[[Outcome], str]] = {"json": json, "sarif": sarif, "markdown": markdown}
