"""The verdict of a rule: it holds, it does not apply, or it has findings with their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from stack.model.platform import Platform

Severity = Literal["info", "warning", "error", "critical"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation: where, why in numbers, and the field that would mend it."""

    rule: str
    severity: Severity
    path: str
    arithmetic: str
    field: str
    proposal: str = ""
    """A value that would hold, where one can be computed."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one rule. `checked` counts what it looked at: at zero it does not apply."""

    rule: Rule
    checked: int
    findings: tuple[Finding, ...] = ()

    @property
    def text(self) -> str:
        """`holds`, `does not apply`, or the number of findings."""
        if self.findings:
            return f"{len(self.findings)} findings" if len(self.findings) > 1 else "1 finding"
        return "holds" if self.checked else "does not apply"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the audit. `check` yields nothing for each thing that holds and findings for each that does not."""

    id: str
    title: str
    source: str
    """Where the threshold comes from."""
    check: Callable[[Platform], Iterable[Finding | None]] = field(repr=False)

    def verdict(self, platform: Platform) -> Verdict:
        """Look at everything the rule speaks of."""
        looked_at = list(self.check(platform))
        return Verdict(self, len(looked_at), tuple(finding for finding in looked_at if finding is not None))
