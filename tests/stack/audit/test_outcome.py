from __future__ import annotations

from datetime import date

import pytest

from components.declaration import Location
from stack.audit import audit_outcome
from stack.audit.finding import Breach, Rule, Severity, Verdict
from stack.audit.outcome import Outcome, judge
from stack.model.profile import AcceptedFinding
from tests.small import small_platform

DAY = date(2026, 11, 30)


def test_the_outcome_of_an_environment_names_its_file() -> None:
    assert audit_outcome(small_platform(), on=DAY).source == "Pulumi.dev.yaml"


def rule(name: str, *breaches: Breach | None, severity: Severity = "error") -> Verdict:
    return Rule(
        id=name,
        title="the sum stays small",
        severity=severity,
        rationale="a large sum falls over",
        source="this test",
        violates="2 > 1",
        holds="1 = 1",
        check=lambda _: breaches,
    ).verdict(small_platform(), DAY)


def breach(path: str = "a → b", severity: Severity | None = None) -> Breach:
    where = Location("stack/catalogue.py", 7)
    return Breach(path, "2 > 1 | all", "a.size", "1", where, severity)


def accepted(path: str = "a → b", expires: date = DAY) -> AcceptedFinding:
    return AcceptedFinding(rule="D02", path=path, reason="it grows next week", expires=expires)


def outcome(*verdicts: Verdict, accepts: tuple[AcceptedFinding, ...] = ()) -> Outcome:
    return judge("Pulumi.toy.yaml", verdicts, accepts, on=DAY)


def test_an_acceptance_holds_to_the_end_of_its_last_day() -> None:
    for expires, fails in ((DAY, False), (date(2026, 11, 29), True)):
        found = outcome(rule("D02", breach()), accepts=(accepted(expires=expires),))
        assert (found.fails, bool(found.grave), found.judged[0].expired) == (fails, fails, fails)


@pytest.mark.parametrize("place", ["a → c", "a"])
def test_an_acceptance_that_matches_no_finding_fails_the_audit(place: str) -> None:
    found = outcome(rule("D02", breach()), accepts=(accepted(place),))
    assert found.fails
    assert [entry.path for entry in found.unused] == [place]
    assert outcome(rule("D02", None), accepts=(accepted(),)).fails


@pytest.mark.parametrize(
    ("severity", "fails", "grave"),
    [("info", False, False), ("warning", True, False), ("error", True, True), ("critical", True, True)],
)
def test_an_info_finding_never_fails_the_audit_and_a_warning_is_not_grave(
    severity: Severity, fails: bool, grave: bool
) -> None:
    found = outcome(rule("D02", breach(severity=severity)))
    assert (found.fails, bool(found.grave)) == (fails, grave)


def test_the_most_severe_finding_comes_first() -> None:
    severities: tuple[Severity, ...] = ("warning", "info", "critical", "error")
    found = outcome(rule("D02", *(breach(name, severity=name) for name in severities)))
    assert [each.finding.severity for each in found.judged] == ["critical", "error", "warning", "info"]
