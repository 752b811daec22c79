"""The runbook: an index, a page for each node with operations, a page of all alerts, and the tenant's procedures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from components.network_policy import NAME_LABEL
from components.node import Dependency, Gateway, InCluster, Node, Service
from components.observability.rules import Alert
from components.secret_keys import SecretKeys
from stack.model.alerting import Alerting
from stack.model.call_graph import CallGraph, Edge, OperationKey
from stack.model.impact import impact
from stack.model.platform import Platform
from stack.model.settings import ROOT
from stack.model.tenant import Tenant
from stack.output.markdown import TEMPLATES, filled

FOLDER = ROOT / "docs" / "runbook"
LABEL = re.compile(r"\{\{\s*\$labels\.(\w+)\s*\}\}")
VALUE = re.compile(r"\{\{\s*\$value[^}]*\}\}")
OF_SERVICES = re.compile(r"\bvoice_|job:requests_per_replica")
"""Series that only services have."""
OF_RUNTIME = re.compile(r"\bvoice_(?!operation_|policy_info|policy_mounted_info)|\bcall:")
"""Series that Go services lack: only the runtime for Python exports them."""
OF_MESH = re.compile(r"\benvoy_cluster_")
"""Series that Python services lack: the mesh enforces only the policies of Go services."""
OF_MODELS = re.compile(r"\b(voice_model|gen_ai)_")
"""Series that only services with model calls have."""
OF_SAGAS = re.compile(r"\bvoice_saga_")
"""Series that only services with sagas have."""
OF_STREAMS = re.compile(r"\bvoice_stream_")
"""Series of services that consume events. Other services lack them."""
OF_FEATURES = re.compile(r"\bvoice_degradation_")
"""Series of services that can turn off features. Other services lack them."""
BY_LABEL: Mapping[str, tuple[str, ...]] = {
    "pod": (
        "kubectl describe pod -n NAMESPACE POD",
        "kubectl logs -n NAMESPACE POD --all-containers --tail=100",
    ),
    "job": (
        "kubectl get pods --all-namespaces -l app.kubernetes.io/name=JOB -o wide",
        "kubectl logs -n NAMESPACE -l app.kubernetes.io/name=JOB --all-containers --tail=100",
    ),
    "deployment": ("kubectl describe deployment -n NAMESPACE DEPLOYMENT",),
    "statefulset": ("kubectl describe statefulset -n NAMESPACE STATEFULSET",),
    "horizontalpodautoscaler": ("kubectl describe hpa -n NAMESPACE HORIZONTALPODAUTOSCALER",),
    "persistentvolumeclaim": ("kubectl describe pvc -n NAMESPACE PERSISTENTVOLUMECLAIM",),
    "cronjob": ("kubectl get jobs -n NAMESPACE --sort-by=.status.startTime",),
    "job_name": ("kubectl logs -n NAMESPACE job/JOB_NAME --all-containers --tail=100",),
    "node": ("kubectl describe node NODE",),
}
"""Label of an alert's series → the commands that show its subject. A word in capitals stands for a label's value."""


class Calls(NamedTuple):
    """Calls from one node to another. All of them have the same fallback, or all have none."""

    operations: tuple[str, ...]
    """Operations of the caller that make the calls."""
    called: tuple[str, ...]
    """Operations of the callee. With a call's purpose the form is `operation:purpose`, as in breakers' names."""
    fallback: str | None
    """How the caller continues without an answer. `None` if the caller's operation fails."""


class Relation(NamedTuple):
    """All calls between a node and another node."""

    node: str
    """The node at the other end."""
    hard: bool
    """True if at least one of the calls is hard."""
    calls: tuple[Calls, ...]
    """The hard calls first."""


class Kept(NamedTuple):
    """A secret of an environment."""

    name: str
    secret: SecretKeys
    environment: str


def runbook(tenant: Tenant, platforms: Iterable[Platform]) -> Iterator[tuple[Path, str]]:
    """Every page with its text. The procedures list the resources that the platform deploys in each environment."""
    graph, alerting = tenant.graph, tenant.alerting
    alerts: dict[str, list[Alert]] = {}
    for alert in (*alerting.objective_alerts, *alerting.platform_alerts):
        alerts.setdefault(alert.name, []).append(alert)
    yield FOLDER / "alerts.md", _page("alerts.md.j2", alerting=alerting, alerts=alerts, site=graph.site)
    pages = [node for node in graph.nodes.values() if node.operations]
    for node in pages:
        yield FOLDER / f"{node.name}.md", _node_page(tenant, node)
    procedures = sorted(tenant.runbook.glob("*.md.j2")) if tenant.runbook else []
    found = list(platforms)
    for path in procedures:
        page = filled(
            path.name,
            path.parent,
            services=list(graph.services),
            platforms=found,
            deployed=partial(deployed, found),
            secrets=[Kept(secret.name, secret, each.environment.name) for each in found for secret in each.secrets],
        )
        yield FOLDER / path.name.removesuffix(".j2"), page
    titles = {path.name.removesuffix(".j2"): _title(path) for path in procedures}
    yield FOLDER / "index.md", _page("index.md.j2", tenant=tenant, pages=pages, procedures=titles)


def _page(name: str, **values: object) -> str:
    return filled(name, TEMPLATES / "runbook", meaning=meaning, first_look=first_look, **values)


def deployed(platforms: Iterable[Platform], kind: str) -> dict[tuple[str, str], list[str]]:
    """Namespace and name of each resource of a kind → the environments that deploy it."""
    found: dict[tuple[str, str], list[str]] = {}
    for platform in platforms:
        for _, resources in platform.resources:
            for resource in resources:
                if resource["kind"] == kind:
                    metadata = resource["metadata"]
                    found.setdefault((metadata["namespace"], metadata["name"]), []).append(platform.environment.name)
    return dict(sorted(found.items()))


def _title(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("# ") for line in lines if line.startswith("# "))


def _node_page(tenant: Tenant, node: Node) -> str:
    graph, alerting = tenant.graph, tenant.alerting
    found = impact(graph, node)
    written = tenant.runbook / f"{node.name}.md" if tenant.runbook else None
    return _page(
        "node.md.j2",
        node=node,
        is_service=isinstance(node, Service),
        is_gateway=isinstance(node, Gateway),
        namespace=_namespace(node),
        selector=_selector(node),
        owner=owner(graph, alerting, node),
        platform_team=alerting.platform_team,
        severity=alerting.severities[node.tier] if isinstance(node, Service) else "critical",
        site=graph.site,
        impact=found,
        background=[operation for operation in node.operations if operation.consumes],
        stopped=[key for key in sorted(found.failing) if key[0] != node.name and _is_background(graph, key)],
        callers=relations(graph.edges_to(node), lambda edge: edge.caller.name),
        caller_languages={edge.caller.language for edge in graph.edges_to(node) if isinstance(edge.caller, Service)},
        callees=relations(graph.edges_from(node), lambda edge: edge.callee.name),
        owners={name: owner(graph, alerting, each) for name, each in graph.nodes.items()},
        alerts=list(dict.fromkeys(_alerts(tenant, node))),
        store_alerts=alerting.store_alerts.get(node.name, ()),
        written=written.read_text(encoding="utf-8") if written and written.exists() else "",
    )


def _is_background(graph: CallGraph, key: OperationKey) -> bool:
    node, operation = key
    return graph.nodes[node].operation(operation).background


def _namespace(node: Node) -> str | None:
    """The namespace of the node's pods. `None` if the node runs outside the cluster."""
    if isinstance(node, Service | Gateway):
        return node.namespace
    addresses = node.addresses if isinstance(node, Dependency) else ()
    return next((address.namespace for address in addresses if isinstance(address, InCluster)), None)


def _selector(node: Node) -> str:
    """The label selector of the node's pods."""
    addresses = node.addresses if isinstance(node, Dependency) else ()
    stores = (f"{each.label}={each.service}" for each in addresses if isinstance(each, InCluster))
    return next(stores, f"{NAME_LABEL}={node.name}")


def _alerts(tenant: Tenant, node: Node) -> Iterator[str]:
    """The names of the alerts that can fire for a node."""
    for alert in tenant.alerting.objective_alerts:
        if _can_fire_for(tenant.graph, node, alert):
            yield alert.name
    yield from (alert.name for alert in tenant.alerting.store_alerts.get(node.name, ()))


def _can_fire_for(graph: CallGraph, node: Node, alert: Alert) -> bool:
    """True if the alert can fire for a node.

    Alerts on routes and on flows concern the services that the gateway calls. Alerts on routes also concern the
    gateway.
    """
    labels = {*LABEL.findall(alert.summary)}
    if any(series.search(alert.expression) for series in _lacked_series(graph, node)):
        return False
    if isinstance(node, Service):
        routed = any(isinstance(edge.caller, Gateway) for edge in graph.edges_to(node))
        return "job" in labels or (routed and bool({"route", "flow"} & labels))
    if _namespace(node) is None:
        return labels == {"dependency"}
    named = f"job='{node.name}'" in alert.expression
    served = "job" in labels <= {"job", "instance", "probe"} and not OF_SERVICES.search(alert.expression)
    return named or served or (isinstance(node, Gateway) and "route" in labels)


def _lacked_series(graph: CallGraph, node: Node) -> Iterator[re.Pattern[str]]:
    """Patterns of the series that a node cannot have."""
    if not any(edge.route for edge in graph.edges_from(node)):
        yield OF_MODELS
    if not isinstance(node, Service):
        return
    yield OF_RUNTIME if node.language == "go" else OF_MESH
    if not any(operation.sagas for operation in node.operations):
        yield OF_SAGAS
    if not any(operation.consumes for operation in node.operations):
        yield OF_STREAMS
    if not node.features:
        yield OF_FEATURES


def owner(graph: CallGraph, alerting: Alerting, node: Node) -> str:
    """The team that repairs a node. For an external node: its callers' teams. They contact the provider."""
    teams = {service.name: team for team, services in alerting.teams.items() for service in services}
    if isinstance(node, Service):
        return teams.get(node.name, alerting.platform_team)
    if _namespace(node):
        return alerting.platform_team
    callers = dict.fromkeys(teams.get(edge.caller.name, alerting.platform_team) for edge in graph.edges_to(node))
    return " and ".join(callers) or alerting.platform_team


def relations(edges: Iterable[Edge], end: Callable[[Edge], str]) -> list[Relation]:
    """The calls, grouped by the node at the other end. Nodes with hard calls come first."""
    by_node: dict[str, dict[str | None, list[Edge]]] = {}
    for edge in sorted(edges, key=lambda edge: edge.call.soft):
        by_node.setdefault(end(edge), {}).setdefault(edge.call.fallback, []).append(edge)
    return [
        Relation(name, None in groups, tuple(_calls(fallback, group) for fallback, group in groups.items()))
        for name, groups in by_node.items()
    ]


def _calls(fallback: str | None, edges: Iterable[Edge]) -> Calls:
    pairs = [
        (f"{edge.caller.name}.{edge.operation.name}", edge.call.name.removeprefix(f"{edge.call.callee}."))
        for edge in edges
    ]
    operations, called = (tuple(dict.fromkeys(each)) for each in zip(*pairs, strict=True))
    return Calls(operations, called, fallback)


def first_look(alert: Alert) -> list[str]:
    """The commands that show the subject of an alert, by the labels in its summary."""
    labels = [label for label in BY_LABEL if label in LABEL.findall(alert.summary)]
    return [command for label in labels for command in BY_LABEL[label]]


def meaning(alert: Alert) -> str:
    """The summary in words. A word in capitals stands for a label's value, and N for a measured value."""
    summary = alert.summary.replace("}}{{", "}} or {{")  # Only one of two adjacent labels has a value.
    return VALUE.sub("N", LABEL.sub(lambda found: found[1].upper(), summary))
