from __future__ import annotations

import pytest
from voice_policies import Duration, Retry

from components.node import Client, Node
from components.operation import hard, operation, stage
from tests.small import gateway, models, service
from tests.stack.audit.rule_findings import STORE, THRICE, TWICE, findings

NO_WAIT = TWICE.model_copy(update={"base_delay": Duration("0s")})


def calling(retry: Retry | None, idempotency: str = "idempotent") -> list[Node]:
    call = hard("store.read", idempotency, retry=retry)  # type: ignore[arg-type]  # every test passes a valid idempotency
    return [service("a", operation("run", stage(call), p95="1s", deadline="60s")), STORE]


def at_the_gateway(retry: Retry | None) -> list[Node]:
    route = operation("ask", stage(hard("a.run", "idempotent", retry=retry)), p95="1s", deadline="60s")
    return [*calling(None), gateway(route)]


def by_library(library: str, retries: int | None) -> list[Node]:
    store = STORE.model_copy(update={"clients": (Client(library=library, retries=retries),)})
    return [calling(None)[0], store]


@pytest.mark.parametrize(
    ("nodes", "severity"),
    [
        (calling(THRICE), None),
        (calling(TWICE.model_copy(update={"max_retries": 3})), "warning"),
        (calling(TWICE.model_copy(update={"max_retries": 4})), "warning"),
        (calling(TWICE.model_copy(update={"max_retries": 5})), "error"),
        (by_library("pymilvus", None), "error"),
        (by_library("pymilvus", 2), None),
    ],
    ids=[
        "3 attempts",
        "4 attempts",
        "5 attempts",
        "6 attempts",
        "library with 76 attempts by default",
        "library with 3 attempts",
    ],
)
def test_r03_finds_more_than_three_attempts(nodes: list[Node], severity: str | None) -> None:
    found = findings("R03", *nodes)
    assert [each.severity for each in found] == ([severity] if severity else [])


def test_r04_finds_retries_without_a_retry_budget() -> None:
    (found,) = findings("R04", *at_the_gateway(TWICE))
    assert found.arithmetic == "gateway makes up to 2 attempts of a call and has no retry budget"
    assert findings("R04", *calling(TWICE)) == ()
    assert findings("R04", *by_library("openai-python", None))
    assert findings("R04", *by_library("openai-python", 0)) == ()


def test_r06_finds_a_retry_of_a_call_that_is_not_idempotent() -> None:
    (found,) = findings("R06", *calling(TWICE, "never"))
    assert found.path == "a.run → store.read"
    assert "attempt_timeout" in found.arithmetic
    assert findings("R06", *calling(TWICE.model_copy(update={"conditions": ("connection_failed",)}), "never")) == ()
    assert findings("R06", *calling(TWICE, "with_key")) == ()


def test_r06_finds_a_library_that_retries_a_call_that_is_not_idempotent() -> None:
    caller, (_, store) = calling(None, "never")[0], by_library("openai-python", 1)
    (found,) = findings("R06", caller, store)
    assert found.arithmetic.startswith("openai-python makes 2 attempts on attempt_timeout, resource_exhausted")
    assert findings("R06", caller, by_library("openai-python", 0)[1]) == ()
    asking = operation("run", stage(hard("llm.generate", "never")), p95="9s", deadline="60s")
    assert findings("R06", service("a", asking), models()) == (), (
        "the next candidate is another model, so no call is repeated"
    )


def test_r07_finds_a_retry_on_a_permanent_outcome() -> None:
    """`model_copy` validates nothing, so the copy may have conditions that the type forbids."""
    (found,) = findings("R07", *calling(TWICE.model_copy(update={"conditions": ("unavailable", "invalid_argument")})))
    assert found.arithmetic == "2 attempts on invalid_argument: each attempt has the same outcome"
    assert found.proposal == "unavailable"
    (both,) = findings("R07", *calling(TWICE.model_copy(update={"conditions": ("not_found", "invalid_argument")})))
    assert both.arithmetic.startswith("2 attempts on invalid_argument, not_found:")
    assert both.proposal == "no retry"
    assert findings("R07", *calling(TWICE.model_copy(update={"conditions": ("unavailable", "aborted")}))) == ()


def test_r08_finds_clients_that_retry_at_the_same_moment() -> None:
    (immediate,) = findings("R08", *at_the_gateway(TWICE))
    assert immediate.arithmetic == "the gateway retries immediately, without a backoff"
    (found,) = findings("R08", *calling(NO_WAIT))
    assert found.arithmetic == "base_delay 0s: every client retries at the same moment"
    assert findings("R08", *calling(NO_WAIT.model_copy(update={"base_delay": Duration("1ms")}))) == ()
    assert findings("R08", *by_library("pymilvus", None))
    assert findings("R08", *by_library("redis-py", None)) == (), "the backoff of redis-py is random"


def test_r08_finds_only_the_call_whose_retries_have_no_delay() -> None:
    calls = [stage(hard("store.read", "idempotent", purpose=name, retry=retry)) for name, retry in WAITS.items()]
    (found,) = findings("R08", service("a", operation("run", *calls, p95="1s", deadline="60s")), STORE)
    assert found.path == "a.run → store.read:together"


WAITS = {"apart": TWICE, "together": NO_WAIT}
