"""Grafana's dashboards, made from the call graph and the prices."""

from __future__ import annotations

from components.observability.dashboards import Dashboard
from stack.model.call_graph import CallGraph
from stack.model.prices import Prices
from stack.voiceassistant.dashboards.capacity import capacity
from stack.voiceassistant.dashboards.datastores import datastores
from stack.voiceassistant.dashboards.dependency import dependency
from stack.voiceassistant.dashboards.gateway import gateway
from stack.voiceassistant.dashboards.models import models
from stack.voiceassistant.dashboards.objectives import objectives
from stack.voiceassistant.dashboards.overview import overview
from stack.voiceassistant.dashboards.sagas import sagas
from stack.voiceassistant.dashboards.service import service
from stack.voiceassistant.dashboards.transport import transport

__all__ = ["dashboards"]


def dashboards(graph: CallGraph, prices: Prices | None) -> tuple[Dashboard, ...]:
    """Every dashboard, the overview first."""
    found = (
        overview(),
        objectives(),
        service(graph),
        dependency(graph),
        datastores(),
        transport(),
        sagas(),
        models(),
        capacity(graph, prices),
    )
    return (*found, gateway()) if graph.gateway else found
