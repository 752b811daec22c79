from __future__ import annotations

from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, Ratio, Retry

from components.node import Node
from components.operation import hard, loop, operation, stage
from stack.audit.finding import Finding
from tests import toy
from tests.small import datastore, gateway, service, small_platform
from tests.stack.audit.rule_findings import READ, STORE, THRICE, TWICE, findings, verdict

RATIO = CircuitBreaker(consecutive_failures=None, failure_ratio=Ratio("50%"))
"""Opens if half of the calls in 30 s fail. If there are fewer than 20 calls, it stays closed."""


def guarded(retry: Retry | None = None, *, load: str | None = None, **breaker: Any) -> list[Node]:
    policy = RATIO.model_copy(update=breaker) if "consecutive_failures" not in breaker else CircuitBreaker(**breaker)
    call = hard("store.read", "idempotent", retry=retry, circuit_breaker=policy)
    return [service("a", operation("run", stage(call), p95="1s", deadline="60s", load=load)), STORE]


@pytest.mark.parametrize(
    ("retry", "threshold", "severity"),
    [
        (THRICE, 3, "error"),
        (THRICE, 6, "warning"),
        (THRICE, 7, None),
        (None, 1, "error"),
        (None, 2, "warning"),
        (None, 3, None),
    ],
    ids=[
        "threshold 3, 3 attempts",
        "threshold 6, 3 attempts",
        "threshold 7, 3 attempts",
        "threshold 1, 1 attempt",
        "threshold 2, 1 attempt",
        "threshold 3, 1 attempt",
    ],
)
def test_c01_finds_a_breaker_that_one_or_two_requests_open(
    retry: Retry | None, threshold: int, severity: str | None
) -> None:
    found = findings("C01", *guarded(retry, consecutive_failures=threshold))
    assert [each.severity for each in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("load", "minimum", "count"), [("1/s", 16, 1), ("1/s", 15, 0), ("2/s", 30, 0)])
def test_c02_finds_a_breaker_that_never_opens(load: str, minimum: int, count: int) -> None:
    nodes = guarded(load=load, minimum_throughput=minimum)
    found = verdict("C02", small_platform(*nodes, load_share=1)).findings
    assert len(found) == count
    for each in found:
        assert each.arithmetic == "1/s × 30s ÷ 2 replicas = 15 calls < minimum_throughput 16: the breaker never opens"
        assert each.proposal == "15"


@pytest.mark.parametrize(("window", "count"), [("99ms", 1), ("100ms", 0)])
def test_c03_finds_a_window_that_is_shorter_than_two_attempts(window: str, count: int) -> None:
    found = findings("C03", *guarded(sampling_duration=Duration(window)))
    assert [each.arithmetic for each in found] == ["window 99ms < 2 × 50ms, an attempt's timeout"] * count


def go_call(*, mesh: bool, conditions: tuple[str, ...] = ("unavailable", "connection_failed")) -> tuple[Finding, ...]:
    retry = TWICE.model_copy(update={"conditions": conditions})
    call = stage(hard("b.read", "idempotent", retry=retry))
    nodes = [service("a", operation("run", call, p95="1s", deadline="60s"), language="go"), service("b", READ)]
    settings = toy.ENVIRONMENT.settings.model_copy(update={"mesh": mesh})
    environment = toy.ENVIRONMENT.model_copy(update={"settings": settings})
    return verdict("C05", small_platform(*nodes, environment=environment)).findings


def test_c05_finds_a_retry_of_a_call_that_the_breaker_refused() -> None:
    (found,) = go_call(mesh=True)
    assert "grpc retries UNAVAILABLE up to 1 times" in found.arithmetic
    assert found.proposal == "no retry"
    (other,) = go_call(mesh=True, conditions=("unavailable", "aborted"))
    assert other.proposal == "aborted"
    assert go_call(mesh=False) == (), "without the mesh there is no breaker"
    assert go_call(mesh=True, conditions=("aborted",)) == ()
    assert findings("C05", *guarded(TWICE)) == (), "the runtime does not retry a refusal by its own breaker"
    spelled = TWICE.model_copy(update={"conditions": ("circuit_open",)})
    assert findings("C05", *guarded(spelled))


@pytest.mark.parametrize(("opened", "count"), [("14s", 1), ("15s", 0), ("150s", 0), ("151s", 1)])
def test_c04_finds_a_break_that_does_not_fit_the_restart(opened: str, count: int) -> None:
    """A break may last from 1 to 10 times as long as the callee's restart."""
    assert STORE.restart == Duration("15s")
    found = findings("C04", *guarded(break_duration=Duration(opened)))
    assert len(found) == count
    assert all(opened in each.arithmetic for each in found)


def calls_to_separate_stores(*calls: dict[str, Any]) -> list[Node]:
    names = [f"store-{number}" for number in range(len(calls))]
    stages = [stage(hard(f"{name}.read", "idempotent", **call)) for name, call in zip(names, calls, strict=True)]
    caller = service("a", operation("run", *stages, p95="1s", deadline="60s", load="1/s"))
    return [caller, *(datastore(name, READ) for name in names)]


def broken(rule: str, *calls: dict[str, Any]) -> list[str]:
    return [each.path.rpartition(" → ")[2] for each in findings(rule, *calls_to_separate_stores(*calls))]


def test_a_rule_that_skips_a_breaker_checks_the_following_ones() -> None:
    safe, unsafe = CircuitBreaker(consecutive_failures=3), CircuitBreaker(consecutive_failures=1)
    calls = [{"circuit_breaker": each} for each in (RATIO, safe, unsafe)]
    assert broken("C01", *calls) == ["store-2.read"]
    rare = {"circuit_breaker": RATIO.model_copy(update={"minimum_throughput": 1_000})}
    assert broken("C02", {"circuit_breaker": safe}, rare) == ["store-1.read"]
    short = {"circuit_breaker": RATIO.model_copy(update={"sampling_duration": Duration("99ms")})}
    assert broken("C03", {"circuit_breaker": safe}, short) == ["store-1.read"]
    long = {"circuit_breaker": safe.model_copy(update={"break_duration": Duration("1h")})}
    fitting = {"circuit_breaker": safe.model_copy(update={"break_duration": Duration("15s")})}
    assert broken("C04", fitting, long) == ["store-1.read"]
    once = TWICE.model_copy(update={"max_retries": 0})
    spelled = TWICE.model_copy(update={"conditions": ("breaker_open", "circuit_open", "unavailable")})
    other = TWICE.model_copy(update={"conditions": ("busy",)})
    retries = [{"circuit_breaker": RATIO, "retry": each} for each in (None, once, other, spelled)]
    assert broken("C05", *retries) == ["store-3.read"]
    alone = TWICE.model_copy(update={"conditions": ("breaker_open",)})
    assert broken("C05", {"circuit_breaker": RATIO, "retry": alone}) == ["store-0.read"]
    (found,) = findings("C05", *calls_to_separate_stores(*retries))
    assert found.arithmetic == "breaker_open, circuit_open is retried up to 1 times"
    assert found.proposal == "unavailable"


@pytest.mark.parametrize(("load", "share", "rounds", "calls"), [("1/s", 0.5, 1, "7.5"), ("1/s", 1, 3, "45")])
def test_c02_counts_the_calls_of_one_replica(load: str, share: float, rounds: int, calls: str) -> None:
    call = hard("store.read", "idempotent", circuit_breaker=RATIO.model_copy(update={"minimum_throughput": 1_000}))
    run = operation("run", loop(call, at_most=rounds, typically=rounds), p95="1s", deadline="60s", load=load)
    (found,) = verdict("C02", small_platform(service("a", run), STORE, load_share=share)).findings
    assert f"÷ 2 replicas = {calls} calls" in found.arithmetic


def test_c02_checks_the_call_that_follows_a_call_without_load() -> None:
    call = hard("store.read", "idempotent", circuit_breaker=RATIO.model_copy(update={"minimum_throughput": 1_000}))
    idle, busy = (
        service(name, operation("run", stage(call), p95="1s", deadline="60s", load=load))
        for name, load in (("idle", None), ("busy", "1/s"))
    )
    assert [each.path for each in findings("C02", idle, busy, STORE)] == ["busy.run → store.read"]


@pytest.mark.parametrize(("load", "proposal"), [("4/m", "1"), ("6/m", "1"), ("8/m", "2")])
def test_c02_proposes_the_whole_number_of_calls_in_the_window(load: str, proposal: str) -> None:
    (found,) = verdict("C02", small_platform(*guarded(load=load, minimum_throughput=16), load_share=1)).findings
    assert found.proposal == proposal


def test_c02_counts_the_gateway_as_one_replica() -> None:
    call = hard("a.read", "idempotent", circuit_breaker=RATIO.model_copy(update={"minimum_throughput": 1_000}))
    entrance = gateway(operation("route", stage(call), p95="1s", deadline="60s", load="1/s"))
    (found,) = verdict("C02", small_platform(entrance, service("a", READ), load_share=1)).findings
    assert "÷ 1 replicas = 30 calls" in found.arithmetic
