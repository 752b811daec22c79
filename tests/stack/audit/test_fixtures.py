from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from stack.audit import RULES

VERDICT = re.compile(r"""^    ['"]([A-Z]\d\d): (?:\d+ checked, )?(holds|finds|refused|\d+ finding)""")
INFORMATION = re.compile(r"""^    ['"]  info: """)


def outcomes() -> dict[str, set[str]]:
    """Rule → its outcomes in the snapshots: `held` or `violated`, and `informed` if the first finding is an `info`.

    A rule holds even with findings, if all have severity `info`. The model itself refuses a cycle of calls, which
    counts as a violation of C07.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for snapshot in (Path(__file__).parent / "__snapshots__").glob("*.ambr"):
        lines = snapshot.read_text(encoding="utf-8").splitlines()
        for line, following in pairwise([*lines, ""]):
            if said := VERDICT.match(line):
                found[said[1]].add("held" if said[2] == "holds" else "violated")
                if INFORMATION.match(following):
                    found[said[1]].add("informed")
    return found


def test_each_rule_has_a_violating_and_a_satisfying_fixture() -> None:
    found = outcomes()
    wanted = {rule.id: {"informed" if rule.severity == "info" else "violated", "held"} for rule in RULES}
    assert {rule: each - found[rule] for rule, each in wanted.items() if not each <= found[rule]} == {}
