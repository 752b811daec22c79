"""The documents that `voice docs` writes, and the bundle's JSON Schema. Tests check that all are current."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from voice_policies import ClosedModel, PolicyBundle

from components.files import file_text
from stack.audit.ledgers import LEDGERS
from stack.audit.ledgers.availability import flow_availability
from stack.audit.ledgers.report import markdown
from stack.audit.timeouts import critical_path
from stack.model.call_graph import CallGraph
from stack.model.enforcement import in_force
from stack.model.flow import Flow, Milestone
from stack.model.platform import Platform
from stack.model.settings import ROOT
from stack.model.tenant import Tenant
from stack.output.diagrams import component_diagram, sequence_diagram, sub_flow_diagram, sub_flows, time_limit
from stack.output.environments import comparison
from stack.output.markdown import filled
from stack.output.model_calls import demand_rows, route_rows
from stack.output.runbook import runbook
from stack.output.technology import technology

__all__ = ["SCHEMA", "bundle_schema", "documents"]

FOLDER = ROOT / "docs"
SCHEMA = ROOT / "policies" / "policy-bundle.schema.json"


def documents(tenant: Tenant, platforms: Sequence[Platform]) -> Iterator[tuple[Path, str]]:
    """Every document that `voice docs` writes: its path and its text."""
    yield FOLDER / "architecture.md", architecture(tenant)
    yield FOLDER / "technology.md", technology()
    yield FOLDER / "environments-compared.md", comparison(platforms)
    yield FOLDER / "ledgers.md", ledger_page(platforms)
    yield FOLDER / "targets.md", target_table(tenant)
    yield from runbook(tenant, platforms)


def architecture(tenant: Tenant) -> str:
    """The text of `docs/architecture.md`."""
    graph = tenant.graph
    return filled(
        "architecture.md.j2",
        name=tenant.name,
        source=tenant.catalogue.source,
        components=component_diagram(graph),
        flows=[(flow.title, sequence_diagram(graph, flow)) for flow in graph.flows if flow.diagram],
        sub_flows=[(".".join(key), sub_flow_diagram(graph, key)) for key in sub_flows(graph)],
        services=list(graph.services),
        teams={each.name: team for team, services in tenant.alerting.teams.items() for each in services},
        edges=[(edge, in_force(edge, "retry", mesh=True)) for edge in graph.edges],
        time_limit=time_limit,
        demands=list(demand_rows(graph)),
        routes=list(route_rows(graph)),
        targets=[_target_row(graph, flow) for flow in graph.flows],
        milestones=[_milestone_row(graph, flow, each) for flow in graph.flows for each in flow.milestones],
        own_availability=graph.site.own_availability,
        only_callers=graph.only_callers,
        forbidden=sorted(graph.forbidden),
    )


def target_table(tenant: Tenant) -> str:
    """The text of `docs/targets.md`: the series, objective, alerts, panels and tests of every target."""
    alerts = {alert.name: alert for alert in tenant.alerting.objective_alerts}
    return filled("targets.md.j2", targets=tenant.targets, alerts=alerts)


def ledger_page(platforms: Iterable[Platform]) -> str:
    """The text of `docs/ledgers.md`: every ledger of each platform whose profile is strict."""
    ledgers = {
        platform.environment.name: {name: markdown(ledger(platform)) for name, ledger in LEDGERS.items()}
        for platform in platforms
        if platform.environment.profile.strict
    }
    return filled("ledgers.md.j2", ledgers=ledgers)


def _milestone_row(graph: CallGraph, flow: Flow, milestone: Milestone) -> dict[str, str]:
    name, _, operation_name = milestone.operation.partition(".")
    node = graph.nodes[name]
    operation = node.operation(operation_name)
    calls = operation.stages[0].calls if milestone.first_stage else ()
    met = max((graph.edge(node, operation, call).latency for call in calls), default=operation.latency)
    return {
        "flow": flow.title,
        "title": milestone.title,
        "operation": milestone.operation,
        "target": str(milestone.target),
        "met": str(met),
    }


def _target_row(graph: CallGraph, flow: Flow) -> dict[str, str]:
    dependencies = flow_availability(graph, flow)
    return {
        "title": flow.title,
        "latency": str(flow.latency),
        "latency_met": str(critical_path(graph, *graph.entrance(flow))),
        "availability": str(flow.availability or "none stated"),
        "availability_met": f"{dependencies.availability():.3%}",
        "arithmetic": dependencies.arithmetic(),
    }


def bundle_schema() -> str:
    """The text of `policies/policy-bundle.schema.json`: the schema of a bundle, for programs in any language."""
    schema = PolicyBundle.model_json_schema(by_alias=True)
    for model in _models(PolicyBundle):
        described = schema if model is PolicyBundle else schema["$defs"].get(model.__name__, {})
        for name, text in attribute_docstrings(model).items():
            field = model.model_fields.get(name)
            properties: dict[str, Any] = described.get("properties", {})
            if field is not None and (field.alias or name) in properties:
                properties[field.alias or name]["description"] = text
    return file_text({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def _models(root: type[ClosedModel]) -> list[type[ClosedModel]]:
    found = [root]
    pending: list[type[ClosedModel]] = [ClosedModel]
    while pending:
        children = pending.pop().__subclasses__()
        pending += children
        found += [child for child in children if child.__module__.startswith("voice_policies") and child is not root]
    return found


def attribute_docstrings(model: type[ClosedModel]) -> dict[str, str]:
    """The docstrings below a model's fields in its source. The schema takes its descriptions from them."""
    (body,) = ast.parse(inspect.getsource(model)).body
    found: dict[str, str] = {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, text in pairwise(statements):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return found
