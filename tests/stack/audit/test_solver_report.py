from __future__ import annotations

import json

from voice_policies import Fault

from components.declaration import Location
from stack.audit.finding import Finding
from stack.audit.solver import Solution
from stack.audit.solver.constraint import Constraint
from stack.audit.solver.report import REPORTS
from stack.audit.solver.values import Change
from tests.small import service, small_platform
from tests.stack.audit.rule_findings import READ

SOLUTION = Solution(
    platform=small_platform(service("a", READ)),
    changes=(Change("a.read", "deadline", "1s", "2s", Location("catalogue.py", 3)),),
    following=(Change("gateway", "timeout", "1s", "2s", None),),
    infeasible=(
        Constraint("T04", "flow f", "1s", "2s", "a.read = 2s", "flows.f.latency", Location("flows.py", 7)),
        Constraint("R01", "a.read", "5 attempts", "6 attempts", "3 × 2 = 6", "max_attempts"),
    ),
    remaining=(Finding("R03", "error", "a.read", "4 > 3", "retries"),),
    refused=(Fault("a.read.deadline", "2s", "at most 1s"),),
)


def test_the_text_has_a_part_for_each_kind_of_result() -> None:
    assert REPORTS["text"](SOLUTION).splitlines() == [
        "change",
        "  a.read: deadline 1s → 2s",
        "     catalogue.py:3",
        "rendered values that change as a consequence",
        "  gateway: timeout 1s → 2s",
        "infeasible",
        "  T04  flow f: a.read = 2s",
        "     bound 1s, needed 2s: change flows.f.latency (flows.py:7)",
        "  R01  a.read: 3 × 2 = 6",
        "     bound 5 attempts, needed 6 attempts: change max_attempts",
        "refused",
        "  a.read.deadline: 2s; at most 1s",
        "remains",
        "  R03  a.read: 4 > 3",
        f"{SOLUTION.platform.environment.name}: no values satisfy every T, C and R rule",
    ]


def test_the_json_report_has_every_field_and_no_blank_line_at_its_end() -> None:
    written = REPORTS["json"](SOLUTION)
    assert written == written.strip()
    assert json.loads(written) == {
        "environment": SOLUTION.platform.environment.name,
        "changes": [{"path": "a.read", "field": "deadline", "old": "1s", "new": "2s", "where": "catalogue.py:3"}],
        "following": [{"path": "gateway", "field": "timeout", "old": "1s", "new": "2s", "where": None}],
        "infeasible": [
            {
                "rule": "T04",
                "path": "flow f",
                "bound": "1s",
                "needed": "2s",
                "why": "a.read = 2s",
                "field": "flows.f.latency",
                "where": "flows.py:7",
            },
            {
                "rule": "R01",
                "path": "a.read",
                "bound": "5 attempts",
                "needed": "6 attempts",
                "why": "3 × 2 = 6",
                "field": "max_attempts",
                "where": None,
            },
        ],
        "refused": ["a.read.deadline: 2s; at most 1s"],
        "remaining": [{"rule": "R03", "path": "a.read", "arithmetic": "4 > 3"}],
    }
