"""The layer that enforces each policy of each edge.

| layer | enforces the policies of | can express |
|---|---|---|
| `runtime` | calls of Python services | everything |
| `grpc` | calls of Go services to services, through the gRPC service config | timeout of the call, retry |
| `gateway` | calls of the gateway to services | timeouts of the call and of an attempt, retry, circuit breaker |
| `driver` | calls of Go services and the gateway to dependencies, through client settings | timeout of the call |
| `mesh` | calls of Go services, where the mesh is on | timeout of an attempt, circuit breaker, bulkhead |

At most one layer retries the calls of an edge. A policy that only the mesh could enforce is not in force where the mesh
is off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from voice_policies import Enforcer

from components.grpc_service_config import inexpressible
from components.node import Gateway, Service
from stack.model.call_graph import Edge

__all__ = ["DECLARED", "PolicyKind", "declares", "enforcer", "in_force", "unenforced"]

PolicyKind = Literal["timeout", "attempt_timeout", "retry", "circuit_breaker", "bulkhead"]

DECLARED: tuple[PolicyKind, ...] = ("retry", "circuit_breaker", "bulkhead")
"""The policies that a call may declare in addition to its timeout."""
_ORDER: tuple[Enforcer, ...] = ("runtime", "grpc", "gateway", "driver", "mesh")
"""Order of preference. If several layers see a call and can express a policy, the first one enforces the policy."""
_EXPRESSES: dict[Enforcer, frozenset[PolicyKind]] = {
    "runtime": frozenset({"timeout", "attempt_timeout", "retry", "circuit_breaker", "bulkhead"}),
    "grpc": frozenset({"timeout", "retry"}),
    "gateway": frozenset({"timeout", "attempt_timeout", "retry", "circuit_breaker"}),
    "driver": frozenset({"timeout"}),
    "mesh": frozenset({"attempt_timeout", "circuit_breaker", "bulkhead"}),
}


def layers(edge: Edge) -> frozenset[Enforcer]:
    """The layers that see the calls of an edge. For Go services the mesh is a layer even where it is off."""
    if isinstance(edge.caller, Gateway):
        return frozenset({"gateway"}) if isinstance(edge.callee, Service) else frozenset({"driver"})
    if isinstance(edge.caller, Service) and edge.caller.language == "python":
        return frozenset({"runtime"})
    return frozenset({"grpc", "mesh"}) if isinstance(edge.callee, Service) else frozenset({"driver", "mesh"})


def enforcer(edge: Edge, policy: PolicyKind) -> Enforcer | None:
    """The layer that enforces a policy of an edge. `None` if no layer can enforce it (rule E01)."""
    seen = layers(edge)
    return next((layer for layer in _ORDER if layer in seen and policy in _EXPRESSES[layer]), None)


def unenforced(edge: Edge) -> Iterator[tuple[PolicyKind, str]]:
    """Declared policies of an edge that no layer can express, each with the reason."""
    seen = " and ".join(sorted(layers(edge)))
    for kind in DECLARED:
        if declares(edge, kind) and enforcer(edge, kind) is None:
            yield kind, f"{seen} cannot express it on this edge"
    if edge.call.retry and enforcer(edge, "retry") == "grpc" and (why := "; ".join(inexpressible(edge.call.retry))):
        yield "retry", why


def declares(edge: Edge, kind: PolicyKind) -> bool:
    """True if the call has a policy of that kind, declared or by default."""
    policies = edge if kind == "circuit_breaker" else edge.call
    return getattr(policies, kind) is not None


def timeout_enforcer(edge: Edge) -> Enforcer:
    """The layer that enforces the timeout. Every edge has such a layer."""
    layer = enforcer(edge, "timeout")
    if layer is None:
        raise ValueError(f"{edge.path}: no layer can enforce a timeout")
    return layer


def attempt_timeout_enforcer(edge: Edge, *, mesh: bool) -> Enforcer | None:
    """The layer that enforces the attempt timeout of a call that gRPC retries: the mesh.

    `None` if gRPC does not retry the call, or if there is no mesh.
    """
    if not edge.call.retry or enforcer(edge, "retry") != "grpc":
        return None
    return in_force(edge, "attempt_timeout", mesh=mesh)


def in_force(edge: Edge, policy: PolicyKind, *, mesh: bool) -> Enforcer | None:
    """The layer that enforces a policy of an edge in an environment with or without a mesh. `None` if no layer does."""
    layer = enforcer(edge, policy)
    return None if layer == "mesh" and not mesh else layer
