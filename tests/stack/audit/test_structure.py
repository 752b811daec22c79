from __future__ import annotations

import pytest
from voice_policies import Bulkhead, InvalidInputError

from components.node import Service
from components.operation import hard, operation, stage
from tests import toy
from tests.small import service, small_platform
from tests.stack.audit.rule_findings import READ, SNAPSHOT_LINES, STORE, TWICE, findings, verdict


def test_c07_refuses_a_cycle_of_operations_and_accepts_services_that_call_each_other() -> None:
    def calling(name: str, callee: str) -> Service:
        return service(name, READ, operation("run", stage(hard(callee, "idempotent")), p95="1s", deadline="2s"))

    with pytest.raises(InvalidInputError) as refused:
        findings("C07", calling("a", "b.run"), calling("b", "a.run"))
    _, _, without_line = str(refused.value.faults[0]).partition(": ")
    SNAPSHOT_LINES.append(f"C07: refused: {without_line}")
    assert "a.run → b.run → a.run: is a cycle" in SNAPSHOT_LINES[-1]
    assert verdict("C07", small_platform(calling("a", "b.read"), calling("b", "a.read"))).text == "holds"


def test_a_policy_that_no_layer_can_express_is_refused_before_rendering() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE))
    refused = small_platform(service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    with pytest.raises(InvalidInputError, match=r"a\.run → store\.read: retry is declared; driver and mesh cannot"):
        _ = refused.components


def test_a_call_that_contradicts_itself_is_refused_with_its_edge() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "never", retry=TWICE)), p95="1s", deadline="60s"))
    with pytest.raises(
        InvalidInputError, match=r"a\.run → store\.read: is refused; a call whose idempotency is 'never'"
    ):
        _ = small_platform(caller, STORE).components


def test_e01_finds_a_policy_that_no_layer_can_express() -> None:
    retrying = stage(hard("store.read", "idempotent", retry=TWICE, bulkhead=Bulkhead(max_concurrent=1)))
    found, *_ = findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    assert found.arithmetic == "retry is declared, but driver and mesh cannot express it on this edge"
    assert findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s")), STORE) == ()


@pytest.mark.parametrize("mesh", [True, False], ids=["mesh is on", "mesh is off"])
def test_e01_finds_policies_that_only_the_mesh_enforces_if_the_mesh_is_off(*, mesh: bool) -> None:
    call = stage(hard("store.read", "idempotent"))
    caller = service("a", operation("run", call, p95="1s", deadline="2s"), language="go")
    settings = toy.ENVIRONMENT.settings.model_copy(update={"mesh": mesh})
    environment = toy.ENVIRONMENT.model_copy(update={"settings": settings})
    found = verdict("E01", small_platform(caller, STORE, environment=environment)).findings
    assert [(each.path, each.field) for each in found] == [
        ("circuit_breaker without mesh", "config.voiceassistant:mesh")
    ] * (not mesh)


def test_e01_names_every_caller_and_proposes_to_remove_the_policy() -> None:
    call = stage(hard("store.read", "idempotent"))
    callers = [service(name, operation("run", call, p95="1s", deadline="2s"), language="go") for name in ("b", "a")]
    (off,) = findings("E01", *callers, STORE)
    assert "only the mesh can enforce circuit_breaker for a, b (2 calls)" in off.arithmetic
    retrying = stage(hard("store.read", "idempotent", retry=TWICE))
    found, *_ = findings("E01", service("a", operation("run", retrying, p95="1s", deadline="2s"), language="go"), STORE)
    assert found.proposal == "None"
