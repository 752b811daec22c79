"""Cost and capacity: the price of the available replicas, load against capacity, autoscalers, pods and nodes."""

from __future__ import annotations

from components.node import Service
from components.observability.dashboards import Dashboard, Panel, Row, metrics
from stack.model.call_graph import CallGraph
from stack.model.prices import Prices

HOURS = 730
"""Hours of a month: 365 × 24 ÷ 12."""
AUTOSCALER = "kube_horizontalpodautoscaler"


_CAPACITY = Row(
    title="Capacity",
    panels=(
        metrics(
            "Load against capacity",
            "Requests per second of each replica, divided by the declared capacity of a replica.",
            {"{{job}}": "job:requests_per_replica:rate5m / on (job) group_left () job:requests_per_replica:capacity"},
            "percentunit",
            red_from=0.9,
        ),
        metrics(
            "Autoscalers",
            "Replicas, as a share of the declared maximum.",
            {"{{horizontalpodautoscaler}}": f"{AUTOSCALER}_status_current_replicas / {AUTOSCALER}_spec_max_replicas"},
            "percentunit",
            red_from=1,
        ),
        metrics(
            "Pods that wait",
            "Pods in the phase Pending: they wait for a node, a volume or an image.",
            {"{{namespace}}": 'sum by (namespace) (kube_pod_status_phase{phase="Pending"})'},
            red_from=1,
        ),
        metrics(
            "Missing replicas",
            "Desired replicas that are not available.",
            {"{{deployment}}": "kube_deployment_spec_replicas - kube_deployment_status_replicas_available > 0"},
            red_from=1,
        ),
        metrics(
            "Restarts",
            "Restarts of containers in the last hour.",
            {
                "{{namespace}}/{{pod}}": "sum by (namespace, pod)"
                " (increase(kube_pod_container_status_restarts_total[1h])) > 0"
            },
        ),
        metrics(
            "Ready nodes",
            "Nodes that kubelet reports as ready.",
            {"nodes": 'sum(kube_node_status_condition{condition="Ready",status="true"})'},
        ),
    ),
)


def capacity(graph: CallGraph, price: Prices | None) -> Dashboard:
    """The dashboard of cost and capacity. Without prices it shows no cost."""
    cost = (Row(title="Cost", panels=(_total(graph, price), _by_service(graph, price))),) if price else ()
    return Dashboard(uid="capacity", title="Cost and capacity", rows=(*cost, _CAPACITY))


def _total(graph: CallGraph, price: Prices) -> Panel:
    parts = " + ".join(f"({_monthly(each, price)} or vector(0))" for each in graph.services)
    return metrics(
        "Cost of all services, a month",
        f"Price of CPU and memory requests of available pods, without mesh proxies ({price.source})."
        " Red above the budget.",
        {"a month": parts},
        "currencyUSD",
        shows="gauge",
        red_from=graph.site.monthly_budget,
    )


def _by_service(graph: CallGraph, price: Prices) -> Panel:
    return metrics(
        "Cost of each service, a month",
        f"Price of CPU and memory requests of available pods, without mesh proxies ({price.source}).",
        {each.name: _monthly(each, price) for each in graph.services},
        "currencyUSD",
    )


def _monthly(service: Service, price: Prices) -> str:
    """Price of the available replicas in USD a month, without mesh proxies. The Deployment has the service's name."""
    sizing = service.sizing
    hourly = sizing.cpu_request.cores * price.cpu_hour + sizing.memory_request.gibibytes * price.memory_hour
    replicas = f'kube_deployment_status_replicas_available{{deployment="{service.name}"}}'
    return f"sum({replicas}) * {hourly * HOURS:.2f}"
