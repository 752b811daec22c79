"""R01, R02, R06: attempts that multiply, and calls that may not be repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Retry

from components.node import Node
from components.operation import hard, operation, stage
from stack.audit.retries import worst_paths
from tests.small import graph_of, service
from tests.stack.audit.rule_findings import STORE, THRICE, TWICE, findings


def chain(*attempts: Retry | None) -> list[Node]:
    """Services that call each other in a row, and a store behind the last."""
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
        ((TWICE, TWICE, TWICE), "2 × 2 × 2 = 8 attempts > 5", "warning"),
        ((THRICE, None, THRICE, TWICE), "3 × 3 × 2 = 18 attempts > 5", "error"),
    ],
)
def test_r01_multiplies_attempts_along_a_path(
    attempts: tuple[Retry | None, ...], arithmetic: str, severity: str
) -> None:
    (found,) = findings("R01", *chain(*attempts))
    assert (found.arithmetic, found.severity) == (arithmetic, severity)
    assert found.path.startswith("hop1.run → ")
    assert findings("R01", *chain(TWICE, None, TWICE)) == ()


@given(st.lists(st.sampled_from([None, TWICE, THRICE]), min_size=1, max_size=5), st.integers(0, 4))
def test_r01_finds_the_worst_path_of_any_tree(attempts: list[Retry | None], width: int) -> None:
    """Side branches without retries never hide the path that has them."""
    nodes = chain(*attempts)
    calls = [
        hard("hop1.run", "idempotent"),
        *[hard("store.read", "idempotent", purpose=f"side-{n}") for n in range(width)],
    ]
    graph = graph_of(*nodes, service("root", operation("run", stage(*calls), p95="1s", deadline="60s")))
    expected = 1
    for retry in attempts:
        expected *= retry.max_attempts if retry else 1

    def product(path: tuple[object, ...]) -> float:
        result = 1
        for edge in path:
            result *= edge.call.max_attempts  # type: ignore[attr-defined]
        return result

    (path,) = worst_paths(graph, product)
    assert product(path) == expected


def test_r02_finds_two_interior_hops_that_retry() -> None:
    (found,) = findings("R02", *chain(TWICE, TWICE, None))
    assert "2 interior hops retry: hop1.run → hop2.run; hop2.run → hop3.run" in found.arithmetic
    assert findings("R02", *chain(TWICE, None, TWICE)) == ()


def test_r06_finds_a_retry_on_what_may_not_be_repeated() -> None:
    caller = service("a", operation("run", stage(hard("store.read", "never", retry=TWICE)), p95="1s", deadline="60s"))
    (found,) = findings("R06", caller, STORE)
    assert found.path == "a.run → store.read"
    assert "attempt_timeout" in found.arithmetic
    unsent = TWICE.model_copy(update={"conditions": ("connection_failed",)})
    mended = service("a", operation("run", stage(hard("store.read", "never", retry=unsent)), p95="1s", deadline="60s"))
    assert findings("R06", mended, STORE) == ()
