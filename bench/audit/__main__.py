"""Time all rules together, on 1,000 services and on prod, and the solver, ledgers and blast radius of prod.

Exit code 1: a time is above its bound.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from components.node import Service
from components.operation import hard, operation, stage
from stack.audit import RULES
from stack.audit.ledgers import LEDGERS
from stack.audit.ledgers.report import REPORTS
from stack.audit.rendered import rendered
from stack.audit.solver import solve
from stack.model.platform import Platform, load_platform
from stack.output.difference import compare
from stack.output.difference.report import REPORTS as DIFFERENCE_REPORTS
from stack.output.difference.sides import side_of
from stack.output.explanation import explain
from stack.voiceassistant import TENANT
from tests.platforms import DAY, platform
from tests.small import datastore, service, small_platform

SERVICES, CALLS = 1_000, 10
LAYERS = 20
"""Depth of the graph. Services call services of the next layer, and the last layer calls the store."""
LARGE_SECONDS, PROD_SECONDS, SOLVER_SECONDS, REVIEW_SECONDS = 2.0, 0.2, 2.0, 2.0


def services() -> Iterator[Service]:
    """Layers of services."""
    width = SERVICES // LAYERS
    for number in range(SERVICES):
        layer, place = divmod(number, width)
        targets = (
            [f"s{(layer + 1) * width + (place * CALLS + step) % width}.run" for step in range(CALLS)]
            if layer + 1 < LAYERS
            else ["store.read"]
        )
        calls = stage(*(hard(target, "idempotent") for target in targets))
        load = "1/s" if layer == 0 else None
        yield service(f"s{number}", operation("run", calls, p95="1s", deadline="10s", load=load), connection_pool=1)


def large() -> Platform:
    """A platform with `services()` and the store that they call."""
    store = datastore("store", operation("read", p95="10ms", deadline="50ms"))
    return small_platform(*services(), store)


def seconds(looked_at: Platform) -> float:
    """CPU seconds of all rules together, after rendering. CPU time depends little on other processes."""
    rendered(looked_at)
    started = time.process_time()
    for rule in RULES:
        rule.verdict(looked_at, DAY)
    return time.process_time() - started


def solver_seconds() -> float:
    """CPU seconds of the solver on prod, and of the explanation of one edge, rendering included."""
    prod = load_platform(TENANT, "prod")
    started = time.process_time()
    solve(prod, on=DAY)
    explain(prod, "agent-engine", "knowledge-graph-service")
    return time.process_time() - started


def review_seconds() -> float:
    """CPU seconds of every ledger of prod, and of the blast radius of prod against staging, rendering included."""
    started = time.process_time()
    DIFFERENCE_REPORTS["markdown"](compare(*(side_of(name, TENANT) for name in ("staging", "prod"))))
    prod = load_platform(TENANT, "prod")
    for ledger in LEDGERS.values():
        REPORTS["markdown"](ledger(prod))
    return time.process_time() - started


def main() -> int:
    """Print each time with its bound."""
    found = large()
    measured = (
        (f"{len(RULES)} rules, {len(found.graph.edges)} calls", seconds(found), LARGE_SECONDS),
        (f"{len(RULES)} rules, prod", seconds(platform("prod")), PROD_SECONDS),
        ("solver and explanation, prod", solver_seconds(), SOLVER_SECONDS),
        ("ledgers and blast radius of prod", review_seconds(), REVIEW_SECONDS),
    )
    for title, taken, bound in measured:
        print(f"{title:<32} {taken:6.3f} s, at most {bound} s")
    return int(any(taken > bound for _, taken, bound in measured))


if __name__ == "__main__":
    sys.exit(main())
