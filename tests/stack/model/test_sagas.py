from __future__ import annotations

from typing import Any

import pytest
from voice_policies import PolicyBundle, Saga, SagaStep

from components.node import Service
from components.operation import Operation, hard, loop, operation, stage
from stack.model.call_graph import sagas
from stack.model.policy_bundles import policy_bundle
from stack.voiceassistant import catalog
from tests.platforms import ENVIRONMENTS, platform, real_environment
from tests.small import datastore, graph_of, service
from tests.stack.audit.rule_findings import findings
from tests.stack.model.test_call_graph import faults

STORE = datastore(
    "store", operation("read", p95="10ms", deadline="50ms"), operation("delete", p95="10ms", deadline="50ms")
)
READS = {"name": "read", "calls": ["store.read"], "no_compensation_because": "reads only"}
OURS = {saga.name: (node, operation, saga) for node, operation, saga in sagas(catalog.SERVICES)}


def keeping(*steps: dict[str, Any], retries: int = 0, **fields: Any) -> Service:
    made = [{"timeout": "5m", "attempt_timeout": "2s", "retry": {"max_retries": retries}, **step} for step in steps]
    saga = {"name": "keeping", "timeout": "1h", "steps": made, **fields}
    calls = (stage(hard("store.delete", "idempotent")), loop(hard("store.read", "idempotent"), at_most=40, typically=2))
    return service(
        "keeper", operation("keep", *calls, p95="1s", deadline="60s", background=True, saga=Saga.model_validate(saga))
    )


def test_a_saga_with_an_undeclared_call_or_unconsumed_event_is_refused() -> None:
    stranger = {"name": "tell", "calls": ["nobody.listens"], "no_compensation_because": "nothing to undo"}
    said = faults(STORE, keeping(READS, stranger, started_by="document.uploaded"))
    assert "keeper.keep: is refused; saga keeping version 1 makes call nobody.listens, which is not declared" in said
    assert "is started by document.uploaded, which the operation does not consume" in said


def test_the_attempt_timeout_of_a_step_covers_all_iterations_of_a_loop() -> None:
    graph_of(STORE, keeping(READS))
    said = faults(STORE, keeping({**READS, "attempt_timeout": "1999ms"}))
    assert "keeper.keep: saga keeping version 1: read.attempt_timeout: is 1999ms; expected at least 2s, the" in said


def test_the_attempt_timeout_of_a_step_covers_the_calls_of_its_compensation() -> None:
    undone = {"name": "write", "compensation": "undo", "compensation_calls": ["store.read", "store.delete"]}
    assert "is 2s; expected at least 2050ms, the longest time of its calls" in faults(STORE, keeping(undone))


def test_r01_counts_the_attempts_of_a_step() -> None:
    assert findings("R01", STORE, keeping(READS, retries=4)) == ()
    (found,) = findings("R01", STORE, keeping(READS, retries=6))
    assert found.arithmetic.startswith("7 attempts > 5")


def with_retired(*versions: int, name: str = "keeping") -> Service:
    node = keeping(READS, version=3)
    (keep,) = node.operations
    assert keep.saga
    retired = tuple(keep.saga.model_copy(update={"name": name, "version": version}) for version in versions)
    return Service(**{**dict(node), "operations": (Operation(**{**dict(keep), "retired_sagas": retired}),)})


def test_retired_versions_are_deployed_with_the_newest_one() -> None:
    graph = graph_of(STORE, with_retired(1, 2))
    bundle = policy_bundle(graph, next(iter(graph.services)), real_environment("dev"))
    assert [(saga.name, saga.version) for saga in bundle.sagas] == [("keeping", 1), ("keeping", 2), ("keeping", 3)]
    assert [inbound.saga for inbound in bundle.inbound] == ["keeping"]


@pytest.mark.parametrize(
    ("versions", "name"),
    [((3,), "keeping"), ((2, 1), "keeping"), ((1,), "losing")],
    ids=["same version", "versions that fall", "another saga"],
)
def test_a_retired_version_needs_a_newer_version_of_the_same_saga(versions: tuple[int, ...], name: str) -> None:
    said = faults(STORE, with_retired(*versions, name=name))
    assert f"retired saga {name} version {versions[0]} must come before a newer version of the same saga" in said


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_the_bundle_of_indexing_service_has_sagas(environment: str) -> None:
    bundles: dict[str, PolicyBundle] = {each.name: each.bundle for each in platform(environment).microservices}
    assert [saga.name for saga in bundles.pop("indexing-service").sagas] == ["document-indexing", "document-deletion"]
    assert not any(bundle.sagas for bundle in bundles.values())


def test_every_step_except_mark_indexed_has_a_compensation() -> None:
    """A failed step may have done its work, so even the last step of a saga needs a compensation.

    `mark-indexed` needs none, because another step's compensation removes the mark.
    """
    kept = [(name, step.name) for name, (_, _, saga) in OURS.items() for step in saga.steps if not step.compensation]
    assert kept == [("document-indexing", "mark-indexed")]


@pytest.mark.parametrize("name", OURS)
def test_every_call_of_a_saga_has_a_step(name: str) -> None:
    """If no step makes a declared call, the NetworkPolicies permit a connection that nobody needs."""
    _, operation_, saga = OURS[name]
    made = {call for step in saga.steps for call in (*step.calls, *step.compensation_calls)}
    assert {call.name for call in operation_.calls} - made <= {"postgresql.write"}  # the journal


def test_an_undone_deletion_restores_the_objects_before_vectors_and_graph() -> None:
    def undoing(step: SagaStep) -> set[str]:
        return {call.removesuffix(":undo") for call in step.compensation_calls}

    deletion = OURS["document-deletion"][2]
    vectors, graph, objects = deletion.steps
    assert undoing(vectors) == {"object-storage.read", "vector-store-adapter.insert"}
    assert undoing(graph) == {"object-storage.read", "knowledge-graph-service.build"}
    assert undoing(objects) == {"object-storage.restore"}
    assert deletion.stages == ((vectors, graph), (objects,))
