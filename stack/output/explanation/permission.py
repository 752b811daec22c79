"""Permission for an undeclared call: the line to add to the catalogue, and its consequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

from voice_policies import InvalidInputError

from components.declaration import Location
from components.node import Caller, Gateway, Service
from components.operation import HttpRoute, Operation, hard, operation, stage
from stack.audit import RULES
from stack.audit.finding import Finding
from stack.model.call_graph import NETWORK_MARGIN
from stack.model.platform import Platform


class Line(NamedTuple):
    """A line of the catalogue, and the caller with this line added."""

    text: str
    into: str
    where: Location | None
    caller: Caller


@dataclass(frozen=True, slots=True)
class Permission:
    """A change of the catalogue that declares a call."""

    line: str
    """The line to add. Empty if no line can permit the call."""
    into: str
    """The part of the catalogue that gets the line."""
    where: Location | None
    """The file and line that declare this part."""
    refused: tuple[str, ...] = ()
    """Reasons why the platform refuses the line."""
    found: tuple[Finding, ...] = ()
    """Findings that the line adds to the audit."""


def permission(platform: Platform, caller: str, callee: str) -> Permission:
    """The change that would permit an undeclared call; both ends are nodes or `node.operation`."""
    graph = platform.tenant.graph
    source, _, wanted = caller.partition(".")
    target, _, offered = callee.partition(".")
    node, called = graph.nodes[source], graph.nodes[target]
    if not isinstance(node, Caller) or not node.operations:
        return Permission("", node.name, node.location, (f"{node.name} has no operation that can make calls",))
    if isinstance(called, Gateway) or not called.operations:
        return Permission("", called.name, called.location, (f"{called.name} has no operation that can be called",))
    action = called.operation(offered) if offered else called.operations[0]
    line = _route(node, called, action) if isinstance(called, Service) and isinstance(node, Gateway) else None
    line = line or _stage(
        node, node.operation(wanted) if wanted else node.operations[0], f"{called.name}.{action.name}"
    )
    return Permission(line.text, line.into, line.where, *_consequences(platform, line.caller))


def _stage(node: Caller, caller: Operation, target: str) -> Line:
    added = stage(hard(target, "idempotent").at(caller.location))
    changed = caller.model_copy(update={"stages": (*caller.stages, added)})
    operations = tuple(changed if each is caller else each for each in node.operations)
    text = f'stage(hard("{target}", "idempotent")),'
    return Line(text, f"{node.name}.{caller.name}", caller.location, node.model_copy(update={"operations": operations}))


def _route(gateway: Gateway, service: Service, called: Operation) -> Line:
    name, target, margin = f"{service.name}-{called.name}", f"{service.name}.{called.name}", NETWORK_MARGIN
    p95, deadline = called.latency + margin, called.deadline + margin
    added = operation(
        name,
        stage(hard(target, "idempotent")),
        p95=str(p95),
        deadline=str(deadline),
        load="1/s",
        http=HttpRoute(path=f"/v1/{name}", method="POST"),
    ).at(gateway.location)
    text = (
        f'operation("{name}", stage(hard("{target}", "idempotent")), p95="{p95}", deadline="{deadline}", load="1/s",'
        f' http=HttpRoute(path="/v1/{name}", method="POST")),'
    )
    changed = gateway.model_copy(update={"operations": (*gateway.operations, added)})
    return Line(text, f"{gateway.name}.operations", gateway.location, changed)


def _consequences(platform: Platform, changed: Caller) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """The reasons why the platform refuses a changed caller. If there are none, the findings that the change adds."""
    catalogue = platform.tenant.catalogue
    nodes = tuple(changed if node.name == changed.name else node for node in catalogue.nodes)
    tenant = replace(platform.tenant, catalogue=catalogue.model_copy(update={"nodes": nodes}))
    try:
        known = set(_findings(platform))
        return (), tuple(found for found in _findings(Platform(tenant, platform.environment)) if found not in known)
    except InvalidInputError as error:
        return tuple(f"{fault.path} {fault.value}: {fault.accepted}" for fault in error.faults), ()


def _findings(platform: Platform) -> Iterator[Finding]:
    """The findings of the audit, without findings of severity `info`."""
    # The line does not cause findings about old prices and retiring models. On `date.min` there are none.
    findings = (finding for rule in RULES for finding in rule.verdict(platform, date.min).findings)
    return (finding for finding in findings if finding.severity != "info")
