"""A rule of the audit, its findings and its verdict: it holds, it does not apply, or it has findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from components.declaration import Location
from stack.model.platform import Platform

__all__ = ["Rule", "Severity"]

Severity = Literal["info", "warning", "error", "critical"]
Subject = TypeVar("Subject", default=Platform)
"""The typed platform, or a system as its manifests tell it."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One place where a rule does not hold, as the rule's check yields it."""

    path: str
    """The path of calls, the workload or the setting that breaks the rule. It names the finding, so it never holds a
    number that may change."""
    arithmetic: str
    """Why, with the numbers in it."""
    field: str
    """The setting or the line of the catalogue to change."""
    proposal: str = ""
    """A value that would hold, where one can be computed."""
    where: Location | None = None
    """The line of the model that declares it, where there is one."""
    severity: Severity | None = None
    """`None` is the rule's own severity."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach with its rule and its severity. The fields are those of `Breach`."""

    rule: str
    severity: Severity
    path: str
    arithmetic: str
    field: str
    proposal: str = ""
    where: Location | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one rule. `checked` counts what it looked at: at zero it does not apply."""

    rule: Rule[Any]
    checked: int
    findings: tuple[Finding, ...] = ()

    @property
    def text(self) -> str:
        """`holds`, `does not apply`, or the number of findings that ask for a change."""
        if count := sum(finding.severity != "info" for finding in self.findings):
            return f"{count} findings" if count > 1 else "1 finding"
        return "holds" if self.checked else "does not apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[Subject]):
    """A rule of the audit. `check` yields `None` for each thing that holds and a breach for each that does not."""

    id: str
    """A letter for the family and two digits, such as `R01`."""
    title: str
    """The condition that holds, in one sentence."""
    severity: Severity
    """Of its findings, unless a breach has one of its own."""
    rationale: str
    """The consequence in operation where the rule does not hold."""
    source: str
    """Where the rule and its threshold come from."""
    violates: str
    """One example that breaks the rule."""
    holds: str
    """The same example, changed so that it just holds."""
    check: Callable[[Subject], Iterable[Breach | None]] = field(repr=False)

    def verdict(self, subject: Subject) -> Verdict:
        """Look at everything the rule speaks of."""
        looked_at = list(self.check(subject))
        return Verdict(self, len(looked_at), tuple(self._finding(breach) for breach in looked_at if breach))

    def _finding(self, breach: Breach) -> Finding:
        severity = breach.severity or self.severity
        return Finding(self.id, severity, breach.path, breach.arithmetic, breach.field, breach.proposal, breach.where)
