from __future__ import annotations

from datetime import date

from stack.cli.findings import text
from tests.stack.audit.test_outcome import accepted, breach, outcome, rule

D02 = rule("D02", breach(), breach("b → c", "warning"), breach("d", "info"))
EXPIRED = date(2026, 1, 31)


def test_findings_are_grouped_by_severity_and_show_their_line_and_a_proposed_value() -> None:
    assert text("toy", outcome(D02, rule("N01", None), rule("N02"))).splitlines() == [
        "error (1)",
        "D02  a → b",
        "     2 > 1 | all",
        "     change a.size; proposal: 1 (stack/catalogue.py:7)",
        "warning (1)",
        "D02  b → c",
        "     2 > 1 | all",
        "     change a.size; proposal: 1 (stack/catalogue.py:7)",
        "info (1)",
        "D02  d",
        "     2 > 1 | all",
        "     change a.size; proposal: 1 (stack/catalogue.py:7)",
        "toy: 1 error, 1 warning, 1 info, 1 rule holds, 1 does not apply",
    ]


def test_an_accepted_finding_is_listed_apart_with_its_reason_and_last_day() -> None:
    lines = text("toy", outcome(rule("D02", breach()), accepts=(accepted(),))).splitlines()
    assert lines == [
        "accepted (1)",
        "     D02  a → b: accepted until 2026-11-30: it grows next week",
        "toy: 1 accepted",
    ]


def test_the_finding_of_an_expired_acceptance_counts_again() -> None:
    lines = text("toy", outcome(rule("D02", breach()), accepts=(accepted(expires=EXPIRED),))).splitlines()
    assert lines[-2:] == [
        "     the acceptance expired on 2026-01-31: it grows next week",
        "toy: 1 error, 1 with an expired acceptance",
    ]


def test_an_acceptance_without_a_finding_is_listed_for_removal() -> None:
    lines = text("toy", outcome(rule("D02", None), accepts=(accepted("removed"),))).splitlines()
    assert lines == [
        "     D02  removed: accepted in Pulumi.toy.yaml, but there is no such finding: remove the acceptance",
        "toy: 1 acceptance without a finding, 1 rule holds",
    ]
