from __future__ import annotations

import pytest
from voice_policies import Adaptive, Bulkhead, Duration, Rate, RateLimit, SlidingWindow, TokenBucket

from components.node import Node, Replicas
from components.operation import Call, hard, operation, soft, stage
from tests.small import gateway, service, small_platform
from tests.stack.audit.rule_findings import READ, STORE, findings, flow, verdict


def critical(call: Call) -> list[Node]:
    route = operation("a-run", stage(hard("a.run", "idempotent")), p95="1s", deadline="2s")
    return [
        gateway(route),
        service("a", operation("run", stage(call), p95="1s", deadline="2s"), tier="core"),
        service("b", READ, tier="standard"),
    ]


def test_c06_finds_a_core_service_that_needs_a_standard_service() -> None:
    promised = (flow("a-run", availability="99%"),)
    (found,) = findings("C06", *critical(hard("b.read", "idempotent")), flows=promised)
    assert found.arithmetic == "a core service cannot work without b, a standard service"
    assert findings("C06", *critical(soft("b.read", "without")), flows=promised) == ()
    assert findings("C06", *critical(hard("b.read", "idempotent")), flows=(flow("a-run"),)) == (), (
        "the flow has no availability target"
    )
    (needed,) = findings("C06", *critical(soft("b.read", "without", needed_by_flows=True)), flows=promised)
    assert needed.severity == "warning"


def test_c06_finds_a_fallback_that_needs_the_failed_callee() -> None:
    other = service("c", operation("run", stage(hard("b.read", "idempotent")), p95="1s", deadline="2s"))
    nodes = critical(soft("b.read", "ask again", fallback_uses=("b",)))
    (found,) = findings("C06", *nodes)
    assert (found.severity, found.path) == ("error", "a.run → b.read")
    (through,) = findings("C06", *critical(soft("b.read", "ask c", fallback_uses=("c",))), other)
    assert "needs b through c" in through.arithmetic
    assert findings("C06", *critical(soft("b.read", "ask the store", fallback_uses=("store",))), STORE) == ()


@pytest.mark.parametrize(("slots", "count"), [(8, 0), (9, 1)], ids=["32 calls for 32 slots", "36 calls for 32 slots"])
def test_c08_compares_bulkheads_with_the_slots_of_the_callee(slots: int, count: int) -> None:
    """Slots of a replica: capacity 100/s × P95 10 ms × headroom 4 = 4, raised to the minimum of 8."""
    call = stage(hard("b.read", "idempotent", bulkhead=Bulkhead(max_concurrent=slots)))
    nodes = [service("a", operation("run", call, p95="1s", deadline="2s")), service("b", READ)]
    found = findings("C08", *nodes)
    assert [each.arithmetic for each in found] == [
        "9 × 4 replicas = 36 concurrent calls > 8 × 4 replicas = 32 slots of the callee"
    ] * count


@pytest.mark.parametrize(
    ("limit", "load", "count"),
    [
        (RateLimit(limit=TokenBucket(rate=Rate("10/s"), burst=1)), "40/s", 0),
        (RateLimit(limit=TokenBucket(rate=Rate("10/s"), burst=1)), "41/s", 1),
        (RateLimit(limit=TokenBucket(rate=Rate("10/s"), burst=1), key="tenant"), "41/s", 0),
        (RateLimit(limit=SlidingWindow(limit=20, window=Duration("2s"))), "41/s", 1),
        (RateLimit(limit=Adaptive(min_rate=Rate("1/s"), max_rate=Rate("10/s"), burst=1)), "41/s", 1),
    ],
    ids=["load at the limit", "token bucket", "token bucket for each tenant", "sliding window", "adaptive limit"],
)
def test_c08_compares_the_load_with_limits_that_all_callers_share(limit: RateLimit, load: str, count: int) -> None:
    node = service(
        "a",
        operation("run", p95="1s", deadline="2s", load=load, rate_limits=(limit,)),
        replicas=Replicas(min=2, max=4),
    )
    found = verdict("C08", small_platform(node, load_share=1)).findings
    assert [each.arithmetic for each in found] == ["declared load 41/s > limit 10/s × 4 replicas"] * count


def test_e02_finds_a_service_that_nobody_calls() -> None:
    (found,) = findings("E02", service("new", READ))
    assert found.path == "new"
    for started in ({"background": True}, {"load": "1/s"}):
        assert findings("E02", service("new", operation("read", p95="1s", deadline="2s", **started))) == ()
    caller = service("a", operation("run", stage(hard("new.read", "idempotent")), p95="1s", deadline="2s", load="1/s"))
    assert findings("E02", caller, service("new", READ)) == ()


def test_c06_follows_the_hard_calls_of_every_operation_behind_a_fallback() -> None:
    deep = service("d", operation("run", stage(hard("b.read", "idempotent")), p95="1s", deadline="2s"))
    through = stage(hard("d.run", "idempotent"))
    other = service(
        "c", operation("run", through, p95="1s", deadline="2s"), operation("answer", p95="1s", deadline="2s")
    )
    (found,) = findings("C06", *critical(soft("b.read", "ask c", fallback_uses=("c",))), deep, other)
    assert "needs b through c" in found.arithmetic
    softly = service("c", operation("run", stage(soft("d.run", "without")), p95="1s", deadline="2s"))
    assert findings("C06", *critical(soft("b.read", "ask c", fallback_uses=("c",))), deep, softly) == ()


def test_c08_counts_a_distributed_limit_once_for_all_replicas_and_ignores_an_operation_without_load() -> None:
    local = RateLimit(limit=TokenBucket(rate=Rate("10/s"), burst=1))
    shared = local.model_copy(update={"scope": "distributed"})

    def limited(limit: RateLimit, load: str | None) -> str:
        node = service("a", operation("run", p95="1s", deadline="2s", load=load, rate_limits=(limit,)))
        return verdict("C08", small_platform(node, load_share=1)).text

    assert limited(shared, "10/s") == "holds"
    assert limited(shared, "11/s") == "1 finding"
    assert limited(local, None) == "does not apply"


def test_c06_follows_the_calls_of_all_operations_of_a_node() -> None:
    calls = [soft(f"{name}.read", "ask c", fallback_uses=("c",)) for name in ("b", "store")]
    other = service(
        "c",
        *(
            operation(f"run-{name}", stage(hard(f"{name}.read", "idempotent")), p95="1s", deadline="2s")
            for name in ("b", "store")
        ),
    )
    asking = service("a", operation("run", stage(*calls), p95="1s", deadline="2s"))
    found = findings("C06", asking, service("b", READ), other, STORE)
    assert [each.path for each in found] == ["a.run → b.read", "a.run → store.read"]
