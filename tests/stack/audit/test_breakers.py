"""C01 to C05: breakers that open too soon, never, or that a retry does not respect."""

from __future__ import annotations

from typing import Any

import pytest
from voice_policies import CircuitBreaker, Duration, Ratio, Retry

from components.node import Node
from components.operation import hard, operation, stage
from stack.audit.finding import Finding
from tests import toy
from tests.small import service, small_platform
from tests.stack.audit.rule_findings import READ, STORE, THRICE, TWICE, findings, verdict

RATIO = CircuitBreaker(consecutive_failures=None, failure_ratio=Ratio("50%"))
"""Opens by the share of failures among at least 20 calls in 30 s."""


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
)
def test_c01_finds_a_breaker_that_one_request_opens(retry: Retry | None, threshold: int, severity: str | None) -> None:
    found = findings("C01", *guarded(retry, consecutive_failures=threshold))
    assert [each.severity for each in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("load", "minimum", "count"), [("1/s", 16, 1), ("1/s", 15, 0), ("2/s", 30, 0)])
def test_c02_finds_a_breaker_that_never_opens(load: str, minimum: int, count: int) -> None:
    """Each of two replicas makes half of the calls."""
    nodes = guarded(load=load, minimum_throughput=minimum)
    found = verdict("C02", small_platform(*nodes, load_share=1)).findings
    assert len(found) == count
    for each in found:
        assert each.arithmetic == "1/s × 30s ÷ 2 replicas = 15 calls < minimum_throughput 16: it never opens"
        assert each.proposal == "15"


@pytest.mark.parametrize(("window", "count"), [("99ms", 1), ("100ms", 0)])
def test_c03_finds_a_window_that_holds_no_two_attempts(window: str, count: int) -> None:
    found = findings("C03", *guarded(sampling_duration=Duration(window)))
    assert [each.arithmetic for each in found] == ["window 99ms < 2 × 50ms, an attempt's timeout"] * count


def go_call(*, mesh: bool, conditions: tuple[str, ...] = ("unavailable", "connection_failed")) -> tuple[Finding, ...]:
    retry = TWICE.model_copy(update={"conditions": conditions})
    call = stage(hard("b.read", "idempotent", retry=retry))
    nodes = [service("a", operation("run", call, p95="1s", deadline="60s"), language="go"), service("b", READ)]
    settings = toy.ENVIRONMENT.settings.model_copy(update={"mesh": mesh})
    environment = toy.ENVIRONMENT.model_copy(update={"settings": settings})
    return verdict("C05", small_platform(*nodes, environment=environment)).findings


def test_c05_finds_a_retry_of_the_breakers_own_refusal() -> None:
    (found,) = go_call(mesh=True)
    assert "grpc repeats UNAVAILABLE 1 times" in found.arithmetic
    assert go_call(mesh=False) == (), "without the mesh there is no breaker"
    assert go_call(mesh=True, conditions=("aborted",)) == ()
    assert findings("C05", *guarded(TWICE)) == (), "the runtime knows its own refusal"
    spelled = TWICE.model_copy(update={"conditions": ("circuit_open",)})
    assert findings("C05", *guarded(spelled))


@pytest.mark.parametrize(("opened", "count"), [("14s", 1), ("15s", 0), ("150s", 0), ("151s", 1)])
def test_c04_finds_a_break_that_does_not_fit_the_restart(opened: str, count: int) -> None:
    assert STORE.restart == Duration("15s")
    found = findings("C04", *guarded(break_duration=Duration(opened)))
    assert len(found) == count
    assert all(opened in each.arithmetic for each in found)
