from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, ClassVar

from voice_policies import Duration, Ratio, Retry

from components.component import Component
from components.node import Node
from components.operation import HttpRoute, hard, operation, stage
from stack.audit import RULES
from stack.audit.finding import Finding, Verdict
from stack.model.flow import Flow
from stack.model.platform import Platform
from stack.voiceassistant import TENANT
from tests.platforms import DAY
from tests.small import datastore, small_platform

READ = operation("read", p95="10ms", deadline="50ms")
STORE = datastore("store", READ)
ROUTE = operation(
    "read",
    stage(hard("a.read", "idempotent")),
    p95="200ms",
    deadline="2s",
    http=HttpRoute(path="/read", method="GET"),
)
TWICE = Retry(max_retries=1, base_delay=Duration("10ms"), max_delay=Duration("10ms"))
THRICE = TWICE.model_copy(update={"max_retries": 2})


SNAPSHOT_LINES: list[str] = []
"""The lines that the running test compares with its snapshot."""


def verdict(rule: str, looked_at: Platform, on: date = DAY) -> Verdict:
    found = next(known for known in RULES if known.id == rule).verdict(looked_at, on)
    if looked_at.tenant.name == TENANT.name:
        # The findings on our own platform would change too often.
        SNAPSHOT_LINES.append(f"{rule}: {'finds' if found.findings else 'holds'} on {TENANT.name}")
        return found
    SNAPSHOT_LINES.append(f"{rule}: {found.checked} checked, {found.text}")
    SNAPSHOT_LINES.extend(
        f"  {each.severity}: {each.path}: {each.arithmetic} [{each.field}] [{each.proposal}]"
        + (" with its line" if each.where else "")
        for each in found.findings
    )
    return found


def findings(rule: str, *nodes: Node, flows: tuple[Flow, ...] = ()) -> tuple[Finding, ...]:
    return verdict(rule, small_platform(*nodes, flows=flows)).findings


def flow(route: str, latency: str = "1s", availability: str | None = None) -> Flow:
    return Flow(
        name="flow",
        title="a flow",
        route=route,
        latency=Duration(latency),
        availability=Ratio(availability) if availability else None,
    )


class Manifests(Component):
    folder: ClassVar[str] = "50-services"
    documents: tuple[dict[str, Any], ...]

    def resources(self) -> Iterator[Any]:
        yield from self.documents


class WithManifests(Platform):
    def __init__(self, nodes: tuple[Node, ...], documents: tuple[dict[str, Any], ...]) -> None:
        small = small_platform(*nodes)
        super().__init__(small.tenant, small.environment)
        self.__dict__["components"] = (Manifests(name="written", namespace="shop", documents=documents),)


def of_manifests(*documents: dict[str, Any], nodes: tuple[Node, ...] = ()) -> Platform:
    return WithManifests(nodes, documents)
