"""A rule of the audit, its findings and its verdict: the rule holds, does not apply, or has findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from components.declaration import Location
from stack.model.platform import Platform

__all__ = ["Finding", "Rule", "Severity"]

Severity = Literal["info", "warning", "error", "critical"]
Subject = TypeVar("Subject", default=Platform)
"""The object that a rule checks: the typed platform, or a system read from manifests."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One place where a rule does not hold."""

    path: str
    """The path of calls, the workload or the setting that breaks the rule. Acceptances name a finding by its rule and
    path, so the path contains no number that may change."""
    arithmetic: str
    """The reason, with its numbers."""
    field: str
    """The setting, the part of the catalogue or the field of a manifest to change."""
    proposal: str = ""
    """A value with which the rule would hold. Empty if the audit cannot compute one."""
    where: Location | None = None
    """The file and line that declare the value. `None` if unknown."""
    severity: Severity | None = None
    """`None` means the rule's own severity."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach with its rule and its severity. `Breach` documents the other fields."""

    rule: str
    severity: Severity
    path: str
    arithmetic: str
    field: str
    proposal: str = ""
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one rule. `checked` counts the items that the rule checked. At zero the rule does not apply."""

    rule: Rule[Any]
    checked: int
    findings: tuple[Finding, ...] = ()

    @property
    def text(self) -> str:
        """`holds`, `does not apply`, or the number of findings. Findings with severity `info` do not count."""
        if count := sum(finding.severity != "info" for finding in self.findings):
            return f"{count} findings" if count > 1 else "1 finding"
        return "holds" if self.checked else "does not apply"


def _never(_subject: object, _on: date) -> Iterator[Breach | None]:
    """The default of `check_on`, for a rule that does not depend on the day."""
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Subject]):
    """A rule of the audit. `check` yields `None` for each item that passes and a breach for each item that fails."""

    id: str
    """A letter for the family and two digits, such as `R01`."""
    title: str
    """The condition that the rule requires, in one sentence."""
    severity: Severity
    """Severity of its findings. A breach may override it."""
    rationale: str
    """The consequence in production if the rule does not hold."""
    source: str
    """The source of the rule and of its threshold."""
    violates: str
    """One example that breaks the rule."""
    holds: str
    """The same example with the smallest change that satisfies the rule."""
    check: Callable[[Subject], Iterable[Breach | None]] = field(repr=False)
    check_on: Callable[[Subject, date], Iterable[Breach | None]] = field(default=_never, repr=False)
    """The part of the check that depends on the day of the audit, such as the age of prices."""

    def verdict(self, subject: Subject, on: date) -> Verdict:
        """Check a subject as of a day."""
        looked_at = [*self.check(subject), *self.check_on(subject, on)]
        return Verdict(self, len(looked_at), tuple(self._finding(breach) for breach in looked_at if breach))

    def _finding(self, breach: Breach) -> Finding:
        severity = breach.severity or self.severity
        return Finding(self.id, severity, breach.path, breach.arithmetic, breach.field, breach.proposal, breach.where)
