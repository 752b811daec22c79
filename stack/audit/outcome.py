"""The outcome of an audit: the findings that count, and those that someone accepted until a day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from stack.audit.finding import Finding, Severity, Verdict
from stack.model.profile import AcceptedFinding

__all__ = ["Judged", "Outcome"]

SEVERITIES: tuple[Severity, ...] = ("critical", "error", "warning", "info")
"""The gravest first."""
GRAVE = frozenset({"critical", "error"})
"""Severities that `voice render` fails for, and that a strict profile is not deployed with."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding with the acceptance that names it."""

    finding: Finding
    acceptance: AcceptedFinding | None = None
    expired: bool = False

    @property
    def accepted(self) -> bool:
        """Somebody accepts it on this day."""
        return self.acceptance is not None and not self.expired


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdicts on one environment or directory, and what became of their findings."""

    source: str
    """The file or directory that was audited."""
    verdicts: tuple[Verdict, ...]
    judged: tuple[Judged, ...]
    """The gravest first, those of one severity in the order of the rules."""
    unused: tuple[AcceptedFinding, ...] = ()
    """Acceptances of findings that are not there."""

    @property
    def fails(self) -> bool:
        """A finding beyond information is not accepted, or an acceptance has no finding."""
        return bool(self.unused or self.open)

    @property
    def open(self) -> tuple[Finding, ...]:
        """The findings beyond information that nobody accepts."""
        unaccepted = (each.finding for each in self.judged if not each.accepted)
        return tuple(finding for finding in unaccepted if finding.severity != "info")

    @property
    def grave(self) -> tuple[Judged, ...]:
        """The findings of severity error or critical that nobody accepts."""
        return tuple(each for each in self.judged if each.finding.severity in GRAVE and not each.accepted)


def judge(source: str, verdicts: Iterable[Verdict], accepted: Sequence[AcceptedFinding] = (), *, on: date) -> Outcome:
    """The outcome on a day. An acceptance holds to the end of its day `expires`, and its finding counts afterwards."""
    found = tuple(verdicts)
    known = {(entry.rule, entry.path): entry for entry in accepted}
    judged = []
    for finding in (finding for verdict in found for finding in verdict.findings):
        entry = known.get((finding.rule, finding.path))
        judged.append(Judged(finding, entry, expired=entry is not None and entry.expires < on))
    judged.sort(key=lambda each: SEVERITIES.index(each.finding.severity))
    used = {(each.finding.rule, each.finding.path) for each in judged}
    return Outcome(source, found, tuple(judged), tuple(entry for place, entry in known.items() if place not in used))
