"""The catalogue of one environment: without the nodes in `without`, and with the addresses of external stores."""

from __future__ import annotations

from collections.abc import Collection

from components.node import Gateway, Node
from components.operation import Operation
from stack.model.call_graph import CallGraph, Edge
from stack.model.catalogue import Catalogue
from stack.model.flow import Flow
from stack.model.settings import Settings


def still_needed(graph: CallGraph, without: Collection[str]) -> dict[str, list[str]]:
    """Node left out → the calls of remaining nodes that need it."""
    found = {
        name: [edge.path for edge in graph.edges_to(graph.nodes[name]) if _needs(edge, without)]
        for name in without
        if name in graph.nodes
    }
    return {name: calls for name, calls in found.items() if calls}


def _needs(edge: Edge, without: Collection[str]) -> bool:
    """True if the caller stays and cannot work without the callee. A gateway's route is removed with its service."""
    if edge.caller.name in without:
        return False
    if any(limit.store == edge.call.name for limit in edge.operation.rate_limits):
        return True
    if isinstance(edge.caller, Gateway):
        return False
    steps = (step for saga in edge.operation.sagas for step in saga.steps)
    of_sagas = {name for step in steps for name in (*step.calls, *step.compensation_calls)}
    carries_events = edge.call not in edge.operation.calls
    return not edge.call.soft or edge.call.needed_by_flows or edge.call.name in of_sagas or carries_events


def deployed(catalogue: Catalogue, settings: Settings) -> Catalogue:
    """The catalogue without the nodes in `without`.

    Calls, routes and flows that need such a node are left out, too. External stores get the addresses from the
    settings.
    """
    without = settings.without
    outside = {name: {"addresses": (address,)} for name, address in settings.external.items()}
    nodes = tuple(
        _node(node, without).model_copy(update=outside.get(node.name))
        for node in catalogue.nodes
        if node.name not in without
    )
    offered = {f"{node.name}.{operation.name}" for node in nodes for operation in node.operations}
    routes = {operation.name for node in nodes if isinstance(node, Gateway) for operation in node.operations}
    flows = tuple(flow for flow in catalogue.flows if flow.route in routes and _named(flow) <= offered)
    names = {node.name for node in nodes}
    only = {callee: caller for callee, caller in catalogue.only_callers.items() if {callee, caller} <= names}
    forbidden = frozenset(pair for pair in catalogue.forbidden if names.issuperset(pair))
    return catalogue.model_copy(update={"nodes": nodes, "flows": flows, "only_callers": only, "forbidden": forbidden})


def _named(flow: Flow) -> set[str]:
    """The operations that a flow names in addition to its route."""
    return {milestone.operation for milestone in flow.milestones} | ({flow.continues} if flow.continues else set())


def _node(node: Node, without: Collection[str]) -> Node:
    """The node without its calls to nodes that are left out. A gateway also loses the routes to such nodes."""
    operations = tuple(
        _operation(operation, without)
        for operation in node.operations
        if not isinstance(node, Gateway) or all(call.soft or call.callee not in without for call in operation.calls)
    )
    return node if operations == node.operations else node.model_copy(update={"operations": operations})


def _operation(operation: Operation, without: Collection[str]) -> Operation:
    if not any(call.callee in without for call in operation.calls):
        return operation
    kept = ((stage, tuple(call for call in stage.calls if call.callee not in without)) for stage in operation.stages)
    stages = tuple(stage.model_copy(update={"calls": calls}) for stage, calls in kept if calls)
    return operation.model_copy(update={"stages": stages})
