"""The outcome of an audit: the open findings, and the findings that somebody accepted until a date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from stack.audit.finding import Finding, Severity, Verdict
from stack.model.profile import AcceptedFinding

__all__ = ["Judged", "Outcome"]

SEVERITIES: tuple[Severity, ...] = ("critical", "error", "warning", "info")
"""The most severe first."""
GRAVE = frozenset({"critical", "error"})
"""Findings of these severities fail `voice render`, unless they have a valid acceptance. They also stop the deployment
of a strict profile."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding, and its acceptance if somebody accepted it."""

    finding: Finding
    acceptance: AcceptedFinding | None = None
    expired: bool = False

    @property
    def accepted(self) -> bool:
        """True if an acceptance covers the finding on the day of the audit."""
        return self.acceptance is not None and not self.expired


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdicts on one environment or directory, and each finding with its acceptance."""

    source: str
    """The file or directory that was audited."""
    verdicts: tuple[Verdict, ...]
    judged: tuple[Judged, ...]
    """The findings, the most severe first. Findings of one severity keep the order of the rules."""
    unused: tuple[AcceptedFinding, ...] = ()
    """Acceptances that match no finding."""

    @property
    def fails(self) -> bool:
        """True if a finding above `info` has no valid acceptance, or if an acceptance matches no finding."""
        return bool(self.unused or self.open)

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings above `info` without a valid acceptance."""
        unaccepted = (each.finding for each in self.judged if not each.accepted)
        return tuple(finding for finding in unaccepted if finding.severity != "info")

    @property
    def grave(self) -> tuple[Judged, ...]:
        """The findings of severity error or critical without a valid acceptance."""
        return tuple(each for each in self.judged if each.finding.severity in GRAVE and not each.accepted)


def judge(source: str, verdicts: Iterable[Verdict], accepted: Sequence[AcceptedFinding] = (), *, on: date) -> Outcome:
    """Match findings with acceptances on a date. An acceptance is valid until the end of the day `expires`."""
    found = tuple(verdicts)
    known = {(entry.rule, entry.path): entry for entry in accepted}
    judged = []
    for finding in (finding for verdict in found for finding in verdict.findings):
        entry = known.get((finding.rule, finding.path))
        judged.append(Judged(finding, entry, expired=entry is not None and entry.expires < on))
    judged.sort(key=lambda each: SEVERITIES.index(each.finding.severity))
    used = {(each.finding.rule, each.finding.path) for each in judged}
    return Outcome(source, found, tuple(judged), tuple(entry for place, entry in known.items() if place not in used))
