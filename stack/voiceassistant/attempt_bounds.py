"""Measured requests of each operation, compared with the largest number that the declared calls can make.

The audit bounds the declared attempts. Example: an operation gets 10 requests/s, and makes at most 2 attempts of its
call. Then its callee gets at most 20 requests/s from this caller. If the callee gets more requests than all its callers
may send, an undeclared layer retries, for example a client library or a proxy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from components.node import Gateway, Service
from components.observability.rules import Recording
from stack.model.call_graph import CallGraph, Edge, OperationKey

__all__ = ["attempt_bounds"]

_REQUESTS = "voice_operation_requests_total"
_SERVED = f"sum by (job, operation) (rate({_REQUESTS}[30m]))"
_BY_ROUTE = "sum by (route) (rate(apisix_http_status[30m]))"


def attempt_bounds(graph: CallGraph) -> Iterator[Recording]:
    """Record the bound of each call, and the measured and the allowed request rate of each operation."""
    bounds: dict[tuple[OperationKey, OperationKey], int] = defaultdict(int)
    for edge in graph.edges:
        if isinstance(edge.callee, Service) and _is_bounded(graph, edge):
            bounds[edge.key, (edge.caller.name, edge.operation.name)] += _most_attempts(edge)
    for ((job, operation), (caller, caller_operation)), most in bounds.items():
        labels = {"job": job, "operation": operation, "caller": caller, "caller_operation": caller_operation}
        yield Recording(name="call:attempts:bound", expression=f"vector({most})", labels=labels)
    if bounds:
        allowed = f"call:attempts:bound * on (caller, caller_operation) group_left () ({_made_by_callers(graph)})"
        yield Recording(name="operation:requests:rate30m", expression=_SERVED)
        yield Recording(name="operation:requests:allowed_rate30m", expression=f"sum by (job, operation) ({allowed})")


def _is_bounded(graph: CallGraph, edge: Edge) -> bool:
    """True if every request of the callee's operation belongs to a counted request of a caller.

    Events and arrivals from outside the platform belong to no such request. Three kinds of callers also send requests
    that are not counted at the caller:

    - A saga repeats its steps without a new request.
    - A consumer works on events.
    - A WebSocket is one request at the gateway but many requests at the service.
    """
    if edge.target.consumes or edge.target.load:
        return False
    return not any(
        each.operation.consumes or each.operation.sagas or each.operation.transport == "websocket"
        for each in graph.edges_to(edge.callee)
        if each.target is edge.target
    )


def _most_attempts(edge: Edge) -> int:
    """Maximum number of attempts of this call in one run of the caller's operation."""
    rounds = next(stage.max_rounds for stage in edge.operation.stages if edge.call in stage.calls)
    return rounds * edge.call.max_attempts


def _made_by_callers(graph: CallGraph) -> str:
    """Expression for the request rate of every calling operation, by `caller` and `caller_operation`."""
    services = _renamed(_renamed(_SERVED, "job", "caller"), "operation", "caller_operation")
    if not isinstance(graph.gateway, Gateway):
        return services
    routes = (
        f'label_replace({_renamed(_BY_ROUTE, "route", "caller_operation")}, "caller", "{graph.gateway.name}", "", "")'
    )
    return f"{services} or {routes}"


def _renamed(expression: str, old: str, new: str) -> str:
    return f'label_replace({expression}, "{new}", "$1", "{old}", "(.+)")'
