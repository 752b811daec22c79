from __future__ import annotations

import linecache

import pytest

from components.declaration import Location
from components.operation import hard, operation, stage
from stack.audit.finding import Breach, Rule
from stack.audit.locations import located
from tests.platforms import DAY
from tests.small import datastore, gateway, service, small_platform

READ = operation("read", p95="10ms", deadline="50ms")
CALL = hard("store.read", "idempotent")
RUN = operation("run", stage(CALL), p95="50ms", deadline="1s")
STORE = datastore("store", READ)
A = service("a", RUN).at(RUN.location)
ROUTE = operation("show", stage(hard("a.run", "idempotent")), p95="200ms", deadline="2s", load="1/s")
GATEWAY = gateway(ROUTE)


def line_of(path: str, where: Location | None = None) -> str:
    rule = Rule(
        id="Z01",
        title="a rule for a test",
        severity="error",
        rationale="a test",
        source="a test",
        violates="anything",
        holds="nothing",
        check=lambda _: [Breach(path, "is wrong", "a field", where=where)],
    )
    platform = small_platform(A, STORE, GATEWAY)
    (verdict,) = located(platform, [rule.verdict(platform, DAY)])
    found = verdict.findings[0].where
    return linecache.getline(*found) if found else ""


@pytest.mark.parametrize(
    ("path", "declared"),
    [
        ("a", "RUN = "),
        ("shop/a: replicas", "RUN = "),
        ("a.run", "RUN = "),
        ("a.run → store.read", "CALL = "),
        ("a.run → store.read → elsewhere", "RUN = "),
        ("a → unknown:9000", "RUN = "),
        ("route show", "ROUTE = "),
        ("stores/store: replicas", "    return Dependency("),
        ("platform → node_pool", ""),
    ],
)
def test_a_finding_has_the_line_of_the_declaration_that_its_path_names(path: str, declared: str) -> None:
    assert line_of(path).startswith(declared)
    assert bool(line_of(path)) == bool(declared)


def test_a_finding_keeps_the_line_that_its_rule_gives() -> None:
    assert line_of("a", CALL.location).startswith("CALL = ")
