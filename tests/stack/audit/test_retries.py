from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Duration, ModelFallback, Retry, Saga, SagaStep

from components.node import Client, Node, Replicas
from components.operation import hard, operation, stage
from stack.model.load import executions
from tests.small import gateway, graph_of, models, service, small_platform
from tests.stack.audit.rule_findings import STORE, THRICE, TWICE, findings, verdict


def chain(*attempts: Retry | None) -> list[Node]:
    """A row of services, each of which calls the next, and a store behind the last."""
    nodes: list[Node] = [STORE]
    target = "store.read"
    for number, retry in enumerate(reversed(attempts)):
        name = f"hop{len(attempts) - number}"
        nodes.append(
            service(name, operation("run", stage(hard(target, "idempotent", retry=retry)), p95="1s", deadline="60s"))
        )
        target = f"{name}.run"
    return nodes


@pytest.mark.parametrize(
    ("attempts", "arithmetic", "severity"),
    [
        ((TWICE, TWICE, TWICE), "2 × 2 × 2 = 8 attempts > 5 when store.read times out", "warning"),
        ((THRICE, None, THRICE, TWICE), "3 × 3 × 2 = 18 attempts > 5 when store.read times out", "error"),
    ],
)
def test_r01_multiplies_attempts_along_a_path(
    attempts: tuple[Retry | None, ...], arithmetic: str, severity: str
) -> None:
    (found,) = findings("R01", *chain(*attempts))
    assert found.arithmetic.replace("cannot be reached", "times out") == arithmetic
    assert found.severity == severity
    assert found.path.startswith("hop1.run → ")
    assert found.where
    assert found.where.file == "tests/stack/audit/test_retries.py"


def test_r01_warns_above_five_attempts_and_fails_above_ten() -> None:
    assert findings("R01", *chain(TWICE.model_copy(update={"max_retries": 4}))) == ()
    (found,) = findings("R01", *chain(TWICE.model_copy(update={"max_retries": 5})))
    assert found.severity == "warning"
    (ten,) = findings("R01", *chain(TWICE.model_copy(update={"max_retries": 9})))
    assert ten.severity == "warning"
    (eleven,) = findings("R01", *chain(TWICE.model_copy(update={"max_retries": 10})))
    assert eleven.severity == "error"


def stacked(*, gateway_retries: bool) -> list[Node]:
    """The last service and the SDK make 3 attempts each, so the last call has 9."""
    four = TWICE.model_copy(update={"max_retries": 3})
    nodes = chain(THRICE, four, THRICE, THRICE)
    sdk = Client(library="openai-python")
    nodes[0] = STORE.model_copy(update={"clients": (sdk,)})
    retry = THRICE if gateway_retries else None
    route = operation("ask", stage(hard("hop1.run", "idempotent", retry=retry)), p95="1s", deadline="60s")
    return [*nodes, gateway(route)]


def test_r01_multiplies_the_attempts_of_all_layers() -> None:
    (found,) = findings("R01", *stacked(gateway_retries=True))
    assert found.arithmetic.startswith("3 × 3 × 4 × 3 × 9 = 972 attempts > 5 when store.read")
    assert found.severity == "error"
    (found,) = findings("R01", *stacked(gateway_retries=False))
    assert "= 324 attempts" in found.arithmetic


def test_r01_multiplies_only_the_hops_that_retry_the_failure() -> None:
    unsent = THRICE.model_copy(update={"conditions": ("connection_failed",)})
    assert findings("R01", *chain(unsent, unsent)) == (), "hop2 answers `unavailable`, and hop1 does not retry that"
    down = THRICE.model_copy(update={"conditions": ("unavailable",)})
    (found,) = findings("R01", *chain(down, unsent, down, unsent))
    assert found.arithmetic == "3 × 3 × 3 = 27 attempts > 5 when store.read cannot be reached"


@given(st.lists(st.sampled_from([None, TWICE, THRICE]), min_size=1, max_size=5), st.integers(0, 4))
def test_r01_finds_the_path_with_retries_beside_any_number_of_side_branches(
    attempts: list[Retry | None], width: int
) -> None:
    nodes = chain(*attempts)
    calls = [
        hard("hop1.run", "idempotent"),
        *[hard("store.read", "idempotent", purpose=f"side-{n}") for n in range(width)],
    ]
    root = service("root", operation("run", stage(*calls), p95="1s", deadline="60s"))
    expected = prod(retry.max_attempts if retry else 1 for retry in attempts)
    found = findings("R01", *nodes, root)
    assert [f"= {expected} attempts" in each.arithmetic for each in found] == ([True] if expected > 5 else [])


def test_r02_finds_two_retried_calls_to_services_on_one_path() -> None:
    (found,) = findings("R02", *chain(TWICE, TWICE, None))
    assert "2 calls to services are retried on this path: hop1.run → hop2.run; hop2.run → hop3.run" in found.arithmetic
    assert found.proposal == "None", "the value of `retry` to write in the catalogue"
    assert findings("R02", *chain(TWICE, None, TWICE)) == ()


def test_r02_names_the_line_of_the_first_hop() -> None:
    first = hard("b.run", "idempotent", retry=TWICE)
    second = hard("c.run", "idempotent", retry=TWICE)
    nodes = [
        service("a", operation("run", stage(first), p95="1s", deadline="60s")),
        service("b", operation("run", stage(second), p95="1s", deadline="60s")),
        service("c", operation("run", p95="1s", deadline="60s")),
    ]
    (found,) = findings("R02", *nodes)
    assert found.where == first.location != second.location


def test_r02_finds_a_policy_and_a_library_that_both_repeat_a_call() -> None:
    def with_client(retries: int | None) -> list[Node]:
        client = Client(library="openai-python", retries=retries)
        return [STORE.model_copy(update={"clients": (client,)}), *chain(TWICE)[1:]]

    (found,) = findings("R02", *with_client(None))
    assert found.arithmetic == "runtime and openai-python retry the same call: 2 × 3 attempts"
    assert found.severity == "error"
    assert findings("R02", *with_client(0)) == ()


def test_r05_reports_burst_and_sustained_attempts() -> None:
    (found,) = findings("R05", *chain(TWICE, THRICE))
    assert found.severity == "info"
    # 2 × 3 in a burst; sustained 1.1 × 1.1, because the default retry budget is 10 %.
    assert "6 (sustained 1.21) when this hop times out" in found.arithmetic
    assert verdict("R05", small_platform(*chain(TWICE, THRICE))).text == "holds", (
        "a finding of severity info does not break the rule"
    )
    assert len(findings("R05", *chain(TWICE))) == 1
    assert findings("R05", *chain(None)) == ()


@pytest.mark.parametrize(("load", "found"), [("181/s", 0), ("182/s", 1)])
def test_r10_fails_if_load_and_sustained_retries_exceed_the_capacity(load: str, found: int) -> None:
    """The default retry budget adds 10 %, so 181/s become 199.1/s."""
    fixed = {"replicas": Replicas.exactly(2)}
    callee = service("a", operation("run", p95="1s", deadline="2s"), **fixed)
    call = stage(hard("a.run", "idempotent", retry=TWICE))
    caller = service("b", operation("run", call, p95="1s", deadline="60s", load=load))
    breaches = verdict("R10", small_platform(caller, callee, load_share=1)).findings
    assert len([each for each in breaches if each.path == "a"]) == found
    if found:
        assert breaches[0].arithmetic == ("182/s offered, 200.2/s with sustained retries > 100/s × 2 replicas = 200/s")
        assert breaches[0].proposal == "max: 3"


def test_r10_adds_sustained_retries_once_if_a_call_retries_every_failure() -> None:
    every = ("unavailable", "attempt_timeout", "connection_failed", "resource_exhausted")
    callee = service("a", operation("run", p95="1s", deadline="2s"), replicas=Replicas.exactly(2))
    call = stage(hard("a.run", "idempotent", retry=TWICE.model_copy(update={"conditions": every})))
    caller = service("b", operation("run", call, p95="1s", deadline="60s", load="182/s"))
    (found,) = (each for each in findings("R10", caller, callee) if each.path == "a")
    assert "200.2/s with sustained retries" in found.arithmetic


def test_the_share_of_a_call_scales_the_load_of_its_callee() -> None:
    calls = stage(hard("store.read", "idempotent", share="10%"), hard("store.read", "idempotent", purpose="always"))
    caller = service("b", operation("run", calls, p95="1s", deadline="60s", load="100/s"))
    assert executions(graph_of(caller, STORE)) == {("b", "run"): 100, ("store", "read"): 110}


def test_r01_ends_the_path_at_the_callee_that_is_down() -> None:
    """No hop retries `unavailable`, so the path with six attempts ends at the second hop."""
    unsent = TWICE.model_copy(update={"max_retries": 5, "conditions": ("connection_failed",)})
    (found,) = findings("R01", *chain(unsent, None))
    assert found.path == "hop1.run → hop2.run"
    assert found.arithmetic == "6 attempts > 5 when hop2.run cannot be reached"


def test_r01_follows_the_path_to_its_end_if_the_last_calls_add_no_attempts() -> None:
    (found,) = findings("R01", *chain(TWICE.model_copy(update={"max_retries": 5}), None))
    assert found.path == "hop1.run → hop2.run → store.read"


def test_r01_names_the_first_of_two_equal_calls() -> None:
    six = TWICE.model_copy(update={"max_retries": 5})
    calls = [hard("store.read", "idempotent", retry=six, purpose=purpose) for purpose in ("first", "second")]
    (found,) = findings("R01", service("a", operation("run", stage(*calls), p95="1s", deadline="60s")), STORE)
    assert found.where == calls[0].location


def test_r02_counts_a_retry_policy_even_if_no_layer_enforces_it() -> None:
    store = STORE.model_copy(update={"clients": (Client(library="openai-python"),)})
    call = stage(hard("store.read", "idempotent", retry=TWICE))
    caller = service("a", operation("run", call, p95="1s", deadline="60s"), language="go")
    (found,) = findings("R02", caller, store)
    assert found.arithmetic == "the policy and openai-python retry the same call: 2 × 3 attempts"


def test_r01_counts_the_candidates_of_a_route_as_attempts() -> None:
    caller = service("a", operation("run", stage(hard("llm.generate", "idempotent")), p95="9s", deadline="60s"))
    outer = service("b", operation("run", stage(hard("a.run", "idempotent", retry=THRICE)), p95="9s", deadline="200s"))
    (found,) = findings("R01", outer, caller, models())
    assert "3 × 2 = 6 attempts" in found.arithmetic


def test_r02_reports_the_path_with_the_largest_number_of_retrying_hops() -> None:
    calls = (hard("store.read", "idempotent", purpose="side"), hard("hop1.run", "idempotent"))
    root = service("root", operation("run", stage(*calls), p95="1s", deadline="60s"))
    (found,) = findings("R02", *chain(TWICE, TWICE, TWICE, None), root)
    assert found.path == "root.run → hop1.run → hop2.run → hop3.run → hop4.run → store.read"


def test_r02_does_not_count_the_step_of_a_saga_as_a_layer() -> None:
    step = SagaStep(name="read", no_compensation_because="it only reads", calls=("store.read",))
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    call = stage(hard("store.read", "idempotent", retry=TWICE))
    caller = service("a", operation("run", call, p95="1s", deadline="60s", saga=saga))
    assert findings("R02", caller, STORE) == ()


def test_r02_multiplies_the_attempts_of_the_layers_that_it_names() -> None:
    step = SagaStep(name="read", no_compensation_because="it only reads", calls=("store.read",))
    saga = Saga(name="reading", steps=(step,), timeout=Duration("2m"))
    store = STORE.model_copy(update={"clients": (Client(library="openai-python"),)})
    call = stage(hard("store.read", "idempotent", retry=TWICE))
    (found,) = findings("R02", service("a", operation("run", call, p95="1s", deadline="60s", saga=saga)), store)
    assert found.arithmetic == "runtime and openai-python retry the same call: 2 × 3 attempts"


@pytest.mark.parametrize(("attempts", "count"), [(1, 0), (2, 1)], ids=["one attempt", "two attempts"])
def test_r02_counts_the_candidates_of_a_route_as_a_layer(attempts: int, count: int) -> None:
    call = stage(hard("llm.generate", "idempotent", retry=TWICE))
    caller = service("a", operation("run", call, p95="9s", deadline="60s"))
    found = findings("R02", caller, models(route_policy={"fallback": ModelFallback(max_attempts=attempts)}))
    assert len(found) == count


def test_r10_scales_the_load_by_the_load_share_of_the_environment() -> None:
    fixed = {"replicas": Replicas.exactly(1)}
    callee = service("a", operation("run", p95="1s", deadline="2s"), **fixed)
    call = stage(hard("a.run", "idempotent", retry=TWICE))
    caller = service("b", operation("run", call, p95="1s", deadline="60s", load="200/s"))
    found = verdict("R10", small_platform(caller, callee, load_share=0.5)).findings
    assert "100/s offered, 110/s with sustained retries" in next(each.arithmetic for each in found if each.path == "a")
