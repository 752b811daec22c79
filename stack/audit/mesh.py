"""S03: the mesh permits exactly the declared calls, over mutual TLS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from components.mesh.policy import METRICS_PATH, TRUST_DOMAIN
from components.mesh.proxy import INJECT_LABEL
from components.network_policy import NAME_LABEL
from components.node import Caller, Gateway, Service
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.call_graph import Edge
from stack.model.enforcement import PolicyKind
from stack.model.platform import Platform
from stack.model.policy_bundles import mesh_hosts

SELECTORS = {
    "AuthorizationPolicy": "selector",
    "DestinationRule": "workloadSelector",
    "PeerAuthentication": "selector",
    "Sidecar": "workloadSelector",
}
"""Kind of policy → the field that selects the pods to which the policy applies. Without the field, the policy applies
to all pods of the namespace."""
STRICT = "STRICT"
TRAFFIC_POLICY: Mapping[PolicyKind, str] = {"circuit_breaker": "outlierDetection", "bulkhead": "connectionPool"}
"""Kind of policy → its field in the `trafficPolicy` of a DestinationRule."""
Permitted = tuple[str, str]
"""The identity of a caller, and the port that it may call. `*` stands for every caller or every port."""


def mesh_permits_the_declared_calls(platform: Platform) -> Iterator[Breach | None]:
    """Compare the mesh's resources with the declared calls of each service and of the gateway."""
    if not platform.environment.settings.mesh:
        return
    found = rendered(platform)
    members = {(each.namespace, each.name) for each in found.workloads if each.labels.get(INJECT_LABEL) == "true"}
    for service in platform.graph.services:
        text = "the pods have no proxy, so the mesh enforces nothing for them"
        lost = Breach(f"{service.namespace}/{service.name}: proxy", text, f"label {INJECT_LABEL}", "true")
        yield None if (service.namespace, service.name) in members else lost
        yield _mutual_tls(platform, service)
        yield from _callers(platform, service)
        yield from _callees(platform, service)
    if gateway := platform.graph.gateway:
        yield from _callees(platform, gateway)


@lru_cache(maxsize=4)
def _policies(platform: Platform) -> Mapping[tuple[str, str, str], Sequence[Mapping[str, Any]]]:
    """Kind, namespace and name of a workload → the specs of its policies. The name is empty for a whole namespace."""
    found: defaultdict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for kind, field in SELECTORS.items():
        for policy in rendered(platform).of_kind(kind):
            labels = selected_labels(policy, field)
            # A selector with other labels may miss some of the workload's pods.
            if not labels.keys() - {NAME_LABEL}:
                found[kind, policy["metadata"]["namespace"], labels.get(NAME_LABEL, "")].append(policy["spec"])
    return found


def selected_labels(policy: Mapping[str, Any], field: str) -> Mapping[str, str]:
    """The labels that a policy's selector requires. Some kinds of Istio have them in `labels`, not in `matchLabels`."""
    selector = policy["spec"].get(field) or {}
    labels: Mapping[str, str] = selector.get("matchLabels", selector.get("labels", {}))
    return labels


def _specs(platform: Platform, kind: str, node: Caller, *, default: bool = False) -> Sequence[Mapping[str, Any]]:
    """The specs of one kind for a workload. If `default`, the specs for the whole namespace instead."""
    return _policies(platform).get((kind, node.namespace, "" if default else node.name), ())


def _mutual_tls(platform: Platform, service: Service) -> Breach | None:
    """Check the namespace's default and each port. The HTTP port is exempt: Prometheus reads it without TLS."""
    kind, defaults = "PeerAuthentication", _specs(platform, "PeerAuthentication", service, default=True)
    modes = [_mode(spec, "PERMISSIVE") for spec in defaults or [{}]]
    for spec in _specs(platform, kind, service):
        by_port = spec.get("portLevelMtls", {}).items()
        modes += [
            _mode(spec, STRICT),
            *(each.get("mode", STRICT) for port, each in by_port if port != str(service.http_port)),
        ]
    weak = any(mode != STRICT for mode in modes)
    text = "no PeerAuthentication requires mutual TLS of every caller, so a caller needs no identity"
    path = f"{service.namespace}/{service.name}: mutual TLS"
    return Breach(path, text, f"{kind}: spec.mtls.mode", STRICT) if weak else None


def _mode(spec: Mapping[str, Any], inherited: str) -> str:
    mode: str = spec.get("mtls", {}).get("mode", inherited)
    return mode


def _callers(platform: Platform, service: Service) -> Iterator[Breach | None]:
    """Compare the callers that the AuthorizationPolicies admit with the declared callers."""
    declared = {
        (
            f"{TRUST_DOMAIN}/ns/{edge.caller.namespace}/sa/{edge.caller.name}",
            str(service.http_port if isinstance(edge.caller, Gateway) else service.grpc_port),
        )
        for edge in platform.graph.edges_to(service)
    }
    kind = "AuthorizationPolicy"
    policies = [*_specs(platform, kind, service), *_specs(platform, kind, service, default=True)]
    allowing = [policy for policy in policies if policy.get("action", "ALLOW") == "ALLOW"]
    # Without a policy, the proxy admits everybody.
    rules = [rule for policy in allowing for rule in policy.get("rules", ())] if allowing else [{}]
    admitted = {each for rule in rules for each in _admitted(rule)}
    for caller, port in sorted(admitted | declared):
        known = (caller, port) in declared
        text = f"{service.name} {'refuses a declared call' if known else 'admits a caller without a declared call'}"
        path = f"{caller.removeprefix(f'{TRUST_DOMAIN}/')} → {service.name}:{port}"
        yield None if known and (caller, port) in admitted else Breach(path, text, f"{kind}: spec.rules")


def _admitted(rule: Mapping[str, Any]) -> Iterator[Permitted]:
    """The callers of a rule, each with a port. Everybody may read metrics."""
    callers = [name for each in rule.get("from", [{}]) for name in each.get("source", {}).get("principals", ["*"])]
    for operation in (each.get("operation", {}) for each in rule.get("to", [{}])):
        if operation.get("paths") != [METRICS_PATH]:
            yield from ((caller, port) for caller in callers for port in operation.get("ports", ["*"]))


def _callees(platform: Platform, caller: Service | Gateway) -> Iterator[Breach | None]:
    """Check that the caller's proxy knows the host of each call, and refuses all other hosts."""
    sidecars = _specs(platform, "Sidecar", caller)
    closed = any(spec.get("outboundTrafficPolicy", {}).get("mode") == "REGISTRY_ONLY" for spec in sidecars)
    text, field = "the proxy connects to every host", "Sidecar: spec.outboundTrafficPolicy.mode"
    yield None if closed else Breach(f"{caller.namespace}/{caller.name}: Sidecar", text, field, "REGISTRY_ONLY")
    known = {host.partition("/")[2] for spec in sidecars for listener in spec["egress"] for host in listener["hosts"]}
    for edge in platform.graph.edges_from(caller) if closed else ():
        for host in mesh_hosts(edge, platform.site):
            text = f"the proxy of {caller.name} refuses the call, because it does not know {host}"
            yield None if host in known else Breach(edge.path, text, "Sidecar: spec.egress[].hosts", host)


def is_rendered(platform: Platform, edge: Edge, kind: PolicyKind) -> bool:
    """True if a DestinationRule of the caller contains the policy for each host of the call."""
    known = {
        (spec["host"], field)
        for spec in _specs(platform, "DestinationRule", edge.caller)
        for field in spec.get("trafficPolicy", ())
    }
    return all((host, TRAFFIC_POLICY[kind]) in known for host in mesh_hosts(edge, platform.site))


RULES = (
    Rule(
        id="S03",
        title="the mesh permits exactly the declared calls, over mutual TLS",
        severity="error",
        rationale="without mutual TLS a caller needs no identity; a proxy refuses calls to an unknown host",
        source="Istio, PeerAuthentication, AuthorizationPolicy and Sidecar",
        violates="only service orders calls service prices, but the policy of service prices also admits service stock",
        holds="the policy of service prices admits only service orders",
        check=mesh_permits_the_declared_calls,
    ),
)
