"""The values that the solver decides, as changes of a catalogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from voice_policies import ClosedModel

from components.declaration import Location
from components.node import Dependency, Node, Service
from components.operation import Call, Operation
from stack.model.call_graph import Edge, OperationKey
from stack.model.platform import Platform

PolicyKey = tuple[str, str]
"""Caller, and the name of a call or of a gRPC method. Calls with the same key share one policy."""
CallKey = tuple[str, str, str]
"""Caller, operation and name of a call."""
Fields = dict[str, Any]


def policy_of(edge: Edge) -> PolicyKey:
    """The key of a call's policy.

    In a Go service, the calls of one gRPC method share a policy. In any other service, the calls with one name share a
    policy.
    """
    by_method = isinstance(edge.caller, Service) and edge.caller.language == "go"
    return edge.caller.name, edge.call.target if by_method else edge.call.name


@dataclass(frozen=True)
class Values:
    """Fields of operations, calls and client libraries, each with its new value."""

    operations: dict[OperationKey, Fields] = field(default_factory=lambda: defaultdict(dict))
    calls: dict[CallKey, Fields] = field(default_factory=lambda: defaultdict(dict))
    clients: dict[tuple[str, str], Fields] = field(default_factory=lambda: defaultdict(dict))
    """Dependency and library → the new values of its fields."""

    def set_call(self, edge: Edge, **fields: object) -> None:
        """Set fields of one call."""
        self.calls[edge.caller.name, edge.operation.name, edge.call.name].update(fields)


def with_values(platform: Platform, values: Values) -> Platform:
    """The platform whose catalogue has these values."""
    catalogue = platform.tenant.catalogue
    nodes = tuple(_node(node, values) for node in catalogue.nodes)
    tenant = replace(platform.tenant, catalogue=catalogue.model_copy(update={"nodes": nodes}))
    return Platform(tenant, platform.environment)


def _node(node: Node, values: Values) -> Node:
    changed: Fields = {"operations": tuple(_operation(node, operation, values) for operation in node.operations)}
    if isinstance(node, Dependency):
        clients = (client.model_copy(update=values.clients.get((node.name, client.library))) for client in node.clients)
        changed["clients"] = tuple(clients)
    return node.model_copy(update=changed)


def _operation(node: Node, operation: Operation, values: Values) -> Operation:
    stages = tuple(
        stage.model_copy(update={"calls": tuple(_call(node, operation, call, values) for call in stage.calls)})
        for stage in operation.stages
    )
    own = values.operations.get((node.name, operation.name), {})
    return operation.model_copy(update={"stages": stages, **own})


def _call(node: Node, operation: Operation, call: Call, values: Values) -> Call:
    return call.model_copy(update=values.calls.get((node.name, operation.name, call.name)))


class Change(NamedTuple):
    """The old and the new value of a field of the catalogue, or of a time in the manifests.

    The times in the manifests follow from the catalogue: grace periods of pods, and timeouts of routes.
    """

    path: str
    field: str
    old: str
    new: str
    where: Location | None
    """The line that declares the dependency, operation or call. `None` for a rendered time."""


def changes(before: Platform, after: Platform) -> Iterator[Change]:
    """The fields of the catalogue that differ."""
    for old, new in zip(before.tenant.catalogue.nodes, after.tenant.catalogue.nodes, strict=True):
        if isinstance(old, Dependency) and isinstance(new, Dependency):
            for client, set_client in zip(old.clients, new.clients, strict=True):
                yield from _fields(f"{old.name} by {client.library}", client, set_client, ("retries",), old.location)
        for one, other in zip(old.operations, new.operations, strict=True):
            path = f"{old.name}.{one.name}"
            yield from _fields(path, one, other, ("latency", "deadline"), one.location)
            for call, changed in zip(one.calls, other.calls, strict=True):
                fields = ("timeout", "retry", "circuit_breaker")
                yield from _fields(path + call.label, call, changed, fields, call.location)


def _fields(
    path: str, old: ClosedModel, new: ClosedModel, names: tuple[str, ...], where: Location | None
) -> Iterator[Change]:
    for name in names:
        one, other = getattr(old, name), getattr(new, name)
        if one == other:
            continue
        if isinstance(one, ClosedModel) and isinstance(other, ClosedModel):
            parts = tuple(type(one).model_fields)
            yield from (
                change._replace(field=f"{name}.{change.field}") for change in _fields(path, one, other, parts, where)
            )
        else:
            yield Change(path, name, _text(one), _text(other), where)


def _text(value: object) -> str:
    """A value as the catalogue writes it. The text of a policy omits the fields that have their default."""
    if not isinstance(value, ClosedModel):
        return str(value)
    fields = type(value).model_fields
    given = {name: getattr(value, name) for name in fields if getattr(value, name) != fields[name].default}
    return f"{type(value).__name__}({', '.join(f'{name}={each}' for name, each in given.items())})"
