"""Finds the line of the catalogue for each finding that has no line yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from components.declaration import Location
from components.node import Caller, Dependency, Gateway, InCluster
from stack.audit.finding import Finding, Verdict
from stack.model.platform import Platform


def located(platform: Platform, verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Add the line that declares the node, operation, call or flow in the path of a finding, unless it has a line."""
    lines = _lines(platform)
    for verdict in verdicts:
        yield replace(verdict, findings=tuple(_located(finding, lines) for finding in verdict.findings))


def _located(finding: Finding, lines: Mapping[str, Location | None]) -> Finding:
    beginnings = (finding.path, *(finding.path.partition(end)[0] for end in (": ", " → ")))
    line = next((lines[each] for each in beginnings if each in lines), None)
    return finding if finding.where or line is None else replace(finding, where=line)


def _lines(platform: Platform) -> dict[str, Location | None]:
    """Path of a flow, call, operation, node or workload → the line of the declaration."""
    graph = platform.graph
    lines = {f"flow {flow.name}": flow.location for flow in graph.flows}
    lines |= {edge.path: edge.call.location for edge in graph.edges}
    for node in graph.nodes.values():
        lines[node.name] = node.location
        lines |= {f"{node.name}.{operation.name}": operation.location for operation in node.operations}
        if isinstance(node, Caller):
            lines[f"{node.namespace}/{node.name}"] = node.location
        if isinstance(node, Dependency):
            inside = (each for each in node.addresses if isinstance(each, InCluster))
            lines |= {f"{address.namespace}/{address.service}": node.location for address in inside}
        if isinstance(node, Gateway):
            lines |= {f"route {route.name}": route.location for route in node.operations}
    return lines
