"""The published examples of CascadeGuard as typed models. CascadeGuard checks topology files that people write by hand.

| CascadeGuard | here |
|---|---|
| timeout-inversion | T01 |
| retry-amplification | R01 |
| non-idempotent-retry | the model refuses the call; R06 also checks it |
| retry-without-cb | R04 if the layer that retries has no retry budget; the runtime and gRPC always have one |
| backoff-no-jitter | R08; the jitter of `Retry` cannot be switched off, so only other layers can lack it |
"""

from __future__ import annotations

import pytest
from voice_policies import Idempotency, InvalidInputError, Retry

from components.node import Node
from components.operation import Call, hard, operation, stage
from stack.audit import audit
from tests.platforms import DAY
from tests.small import datastore, gateway, service, small_platform

FOUND_THERE = frozenset({"T01", "R01", "R04", "R08"})


def call(target: str, timeout: str, retries: int, idempotency: Idempotency = "idempotent", **options: object) -> Call:
    retry = Retry(max_retries=retries) if retries else None
    return hard(target, idempotency, timeout=timeout, retry=retry, **options)


def chain(first: Call, second: Call, *, entrance: bool = False) -> tuple[Node, ...]:
    run = operation("run", stage(first), p95="1ms", deadline="1h")
    begin = gateway(run) if entrance else service("a", run)
    middle = service("b", operation("run", stage(second), p95="1ms", deadline="1m"))
    return begin, middle, datastore("c", operation("run", p95="1ms", deadline="1ms"))


def rules(*nodes: Node) -> set[str]:
    verdicts = audit(small_platform(*nodes), on=DAY)
    findings = (finding for verdict in verdicts for finding in verdict.findings if finding.severity != "info")
    return {finding.rule for finding in findings} & FOUND_THERE


def test_the_audit_finds_the_faults_in_the_topology_of_cascadeguards_readme() -> None:
    first = call("b.run", "3s", 3, circuit_breaker=None)
    with pytest.raises(
        InvalidInputError, match="a call whose idempotency is 'never' may retry on connection_failed only"
    ):
        rules(*chain(first, call("c.run", "5s", 2, "never", circuit_breaker=None), entrance=True))
    assert rules(*chain(first, call("c.run", "5s", 2, circuit_breaker=None), entrance=True)) == FOUND_THERE


def test_a_call_that_is_not_idempotent_may_make_one_attempt_but_no_retry() -> None:
    with pytest.raises(InvalidInputError, match="idempotency is 'never'"):
        rules(*chain(call("b.run", "1m", 2, "never"), call("c.run", "1s", 0)))
    assert rules(*chain(call("b.run", "1m", 0, "never"), call("c.run", "1s", 0))) == set()


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        pytest.param(call("b.run", "3s", 0), call("c.run", "5s", 0), {"T01"}, id="timeout-inversion"),
        pytest.param(call("b.run", "5s", 0), call("c.run", "3s", 0), set(), id="timeouts-that-fit"),
        pytest.param(call("b.run", "3s", 0), call("c.run", "3s", 0), set(), id="equal-timeouts"),
        pytest.param(call("b.run", "1m", 3), call("c.run", "1s", 3), {"R01"}, id="16-attempts"),
        pytest.param(call("b.run", "1m", 1), call("c.run", "1s", 1), set(), id="4-attempts"),
        pytest.param(call("b.run", "1m", 1), call("c.run", "1s", 3), {"R01"}, id="8-attempts"),
        pytest.param(call("b.run", "1m", 2), call("c.run", "1s", 0), set(), id="idempotent"),
    ],
)
def test_the_audit_finds_the_faults_in_the_examples_of_cascadeguards_rules(
    first: Call, second: Call, found: set[str]
) -> None:
    assert rules(*chain(first, second)) & {"T01", "R01"} == found
