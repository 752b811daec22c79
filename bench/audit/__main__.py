"""Time all rules on 1,000 services and on prod. Also time the solver, the ledgers and the blast radius on prod.

A multiple is a measured time ÷ the time in which the same platform computes its resources. It is nearly the same on
every machine. Exit code 1: a multiple is above its bound.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

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
from tests.platforms import DAY
from tests.small import datastore, service, small_platform

SERVICES, CALLS = 1_000, 10
LAYERS = 20
"""Depth of the graph. Services call services of the next layer, and the last layer calls the store."""
LARGE, PROD, SOLVER, REVIEW = 1.5, 1.5, 8.0, 4.0
"""Largest multiples. The measured multiples of 2026-12-01 were 0.9, 0.8, 4.7 and 2.5; the rest allows for noise."""


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


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def audit(looked_at: Platform) -> None:
    """Apply every rule."""
    for rule in RULES:
        rule.verdict(looked_at, DAY)


def solve_and_explain(prod: Platform) -> None:
    """Solve prod, and explain one of its edges."""
    solve(prod, on=DAY)
    explain(prod, "agent-engine", "knowledge-graph-service")


def review() -> None:
    """Compute the blast radius of prod against staging, and every ledger of prod, as Markdown."""
    DIFFERENCE_REPORTS["markdown"](compare(*(side_of(name, TENANT) for name in ("staging", "prod"))))
    prod = load_platform(TENANT, "prod")
    for ledger in LEDGERS.values():
        REPORTS["markdown"](ledger(prod))


def main() -> int:
    """Print each time, its multiple and its bound."""
    many, prod = large(), load_platform(TENANT, "prod")
    of_many, of_prod = (seconds(partial(rendered, found)) for found in (many, prod))
    measured = (
        (f"{len(RULES)} rules, {len(many.graph.edges)} calls", seconds(partial(audit, many)), of_many, LARGE),
        (f"{len(RULES)} rules, prod", seconds(partial(audit, prod)), of_prod, PROD),
        ("solver and explanation, prod", seconds(partial(solve_and_explain, prod)), of_prod, SOLVER),
        ("ledgers and blast radius of prod", seconds(review), of_prod, REVIEW),
    )
    for title, taken, resources, bound in measured:
        print(f"{title:<32} {taken:6.3f} s = {taken / resources:4.1f} × resources, at most {bound}")
    return int(any(taken > bound * resources for _, taken, resources, bound in measured))


if __name__ == "__main__":
    sys.exit(main())
