"""The audit's outcome as SARIF 2.1.0 (OASIS, errata 01). Code review tools show each result at its line.

Section numbers refer to the specification.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from stack.audit.finding import Finding, Rule, Severity
from stack.audit.outcome import Judged, Outcome

LEVELS: dict[Severity, str] = {"critical": "error", "error": "error", "warning": "warning", "info": "note"}
"""Severity → level of a result (3.27.10)."""


def sarif_log(outcome: Outcome) -> dict[str, Any]:
    """One run, with every rule and a result for each finding."""
    rules = [verdict.rule for verdict in outcome.verdicts]
    index = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "voice check",
        "version": version("voiceassistant-platform"),
        "rules": [_rule(rule) for rule in rules],
    }
    results = [_result(judged, index[judged.finding.rule], outcome.source) for judged in outcome.judged]
    return {"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.rationale},
        "help": {"text": f"Source: {rule.source}\nViolates: {rule.violates}\nHolds: {rule.holds}"},
        "defaultConfiguration": {"level": LEVELS[rule.severity]},
    }


def _result(judged: Judged, rule_index: int, source: str) -> dict[str, Any]:
    finding = judged.finding
    result = {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": LEVELS[finding.severity],
        "message": {"text": _message(finding)},
        "locations": [_location(finding, source)],
        # A finding's path contains no number that may change, so the fingerprint (3.27.17) is the same in every run.
        "partialFingerprints": {"rulePath/v1": f"{finding.rule} {finding.path}"},
    }
    if judged.acceptance:
        status = "rejected" if judged.expired else "accepted"
        result["suppressions"] = [
            {"kind": "external", "status": status, "justification": judged.acceptance.reason}  # 3.35
        ]
    return result


def _message(finding: Finding) -> str:
    proposal = f"; proposal: {finding.proposal}" if finding.proposal else ""
    return f"{finding.path}: {finding.arithmetic}. Change {finding.field}{proposal}"


def _location(finding: Finding, source: str) -> dict[str, Any]:
    """The line that declares the value, or the audited file if the finding has no line."""
    file, region = (source, None) if finding.where is None else finding.where
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(file)}}
    if region is not None:
        physical["region"] = {"startLine": region}
    return {"physicalLocation": physical, "logicalLocations": [{"fullyQualifiedName": finding.path}]}
