"""Grafana's dashboards, generated: one for the whole platform, and one for a chosen service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.files import file_text
from components.operation import Name, Sentence

__all__ = ["platform_dashboard", "service_dashboard"]

PROMETHEUS, ALERTMANAGER, TEMPO, JAEGER, ELASTICSEARCH = "prometheus", "alertmanager", "tempo", "jaeger", "logs"
"""Uids of the data sources. They must never change, because dashboards, links and bookmarks contain them."""
Unit = Literal["reqps", "percentunit", "s", "short"]
COLUMNS, HEIGHT = 24, 8
"""Grafana's grid has 24 columns."""
SCHEMA_VERSION = 42
"""Version of the dashboard's JSON model. Grafana 13 reads it and migrates older ones."""
SERVICE = "service"
"""The variable that chooses a service. Prometheus stores the service's name in the label `job`."""


class Query(ClosedModel):
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""


class Panel(ClosedModel):
    """A panel. With queries it shows metrics over time; `logs` and `traces` show those of the chosen service."""

    title: Sentence
    description: Sentence
    unit: Unit = "short"
    queries: tuple[Query, ...] = ()
    shows: Literal["metrics", "logs", "traces"] = "metrics"
    width: Annotated[int, Field(ge=1, le=COLUMNS)] = COLUMNS // 2


class Dashboard(ClosedModel):
    """A page of panels."""

    uid: Name
    title: Sentence
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]
    services: tuple[Name, ...] = ()
    """Values of the dashboard's variable. Empty for a dashboard without a variable."""

    @property
    def text(self) -> str:
        """The dashboard as JSON for Grafana."""
        return file_text(
            {
                "uid": self.uid,
                "title": self.title,
                "tags": ["voiceassistant"],
                "schemaVersion": SCHEMA_VERSION,
                "timezone": "browser",
                "editable": False,
                "refresh": "30s",
                "time": {"from": "now-1h", "to": "now"},
                "templating": {"list": [_variable(self.services)] if self.services else []},
                "panels": list(_placed(self.panels)),
            }
        )


def _variable(services: tuple[Name, ...]) -> dict[str, Any]:
    return {
        "name": SERVICE,
        "label": "Service",
        "type": "custom",
        "query": ",".join(services),
        "current": {"text": services[0], "value": services[0]},
        "multi": False,
        "includeAll": False,
    }


def _placed(panels: Iterable[Panel]) -> Iterator[dict[str, Any]]:
    """Place panels from left to right. A panel that does not fit begins a new row."""
    left, top = 0, 0
    for number, panel in enumerate(panels, start=1):
        if left + panel.width > COLUMNS:
            left, top = 0, top + HEIGHT
        place = {"x": left, "y": top, "w": panel.width, "h": HEIGHT}
        yield {
            "id": number,
            "title": panel.title,
            "description": panel.description,
            "gridPos": place,
            **_contents(panel),
        }
        left += panel.width


def _contents(panel: Panel) -> dict[str, Any]:
    match panel.shows:
        case "logs":
            return {"type": "logs", "datasource": _source("elasticsearch", ELASTICSEARCH), "targets": [_log_query()]}
        case "traces":
            return {"type": "table", "datasource": _source("tempo", TEMPO), "targets": [_trace_query()]}
        case _:
            return {
                "type": "timeseries",
                "datasource": _source("prometheus", PROMETHEUS),
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [_metric_query(number, query) for number, query in enumerate(panel.queries)],
            }


def _source(kind: str, uid: str) -> dict[str, str]:
    return {"type": kind, "uid": uid}


def _metric_query(number: int, query: Query) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "expr": query.expression,
        "legendFormat": query.legend,
        # Exemplars: a dot for a sampled request links to its trace.
        "exemplar": True,
    }


def _log_query() -> dict[str, Any]:
    """A query for log lines of the service, from its containers or over OTLP."""
    fields = ("attributes.kubernetes.container_name", "resource.attributes.service.name")
    logs = {"id": "1", "type": "logs", "settings": {"limit": "200"}}
    return {"refId": "A", "query": " OR ".join(f'{field}:"${SERVICE}"' for field in fields), "metrics": [logs]}


def _trace_query() -> dict[str, Any]:
    return {
        "refId": "A",
        "queryType": "traceql",
        "query": f'{{resource.service.name="${SERVICE}"}}',
        "tableType": "traces",
        "limit": 20,
    }


def _rate(metric: str, by: str, matchers: str = "") -> str:
    selected = f"{metric}{{{matchers}}}" if matchers else metric
    return f"sum by ({by}) (rate({selected}[$__rate_interval]))"


def _ratio(above: str, below: str) -> str:
    return f"{above} / {below}"


def _metrics(title: str, description: str, series: dict[str, str], unit: Unit = "short") -> Panel:
    """A panel of metrics with a legend for each series."""
    queries = tuple(Query(expression=expression, legend=legend) for legend, expression in series.items())
    return Panel(title=title, description=description, unit=unit, queries=queries)


def _served(noun: str, by: str, own: str, beyond: str) -> Iterator[Panel]:
    """Panels for load, failures and latency of requests, by service or by operation."""
    legend, failed = f"{{{{{by}}}}}", ", ".join(filter(None, (own, 'kind="failed"')))
    requests = _rate("voice_operation_requests_total", by, own)
    failures = _ratio(_rate("voice_operation_requests_total", by, failed), requests)
    seconds = _ratio(_rate("voice_operation_seconds_total", by, own), requests)
    slow = _ratio(_rate("voice_operation_slow_requests_total", by, own), requests)
    yield _metrics("Requests", f"Requests served, by {noun}.", {legend: requests}, "reqps")
    yield _metrics("Failures", f"Share of requests that failed, by {noun}.", {legend: failures}, "percentunit")
    yield _metrics("Time", f"Mean time of a request, by {noun}.", {legend: seconds}, "s")
    yield _metrics("Beyond the objective", beyond, {legend: slow}, "percentunit")


def platform_dashboard() -> Dashboard:
    """The platform's dashboard: load, failures, latency and protections of every service."""
    beyond = "Share of requests that took longer than their operation's objective, by service."
    return Dashboard(
        uid="platform", title="Platform", panels=(*_served("service", "job", "", beyond), *_between_services())
    )


def _between_services() -> Iterator[Panel]:
    """Panels for calls between services, and for the state of every service."""
    edges = _rate("traces_service_graph_request_server_seconds_bucket", "le, client, server")
    fullness = _ratio("voice_bulkhead_in_flight_calls", "voice_bulkhead_max_concurrent_calls")
    yield _metrics(
        "Time between services",
        "P95 at the callee, by who calls whom: from the spans of sampled traces.",
        {"{{client}} → {{server}}": f"histogram_quantile(0.95, {edges})"},
        "s",
    )
    yield _metrics(
        "Open circuit breakers",
        "Pods whose breaker of a call is open.",
        {"{{job}}: {{name}}": 'sum by (job, name) (voice_circuitbreaker_state{state="open"}) > 0'},
    )
    yield _metrics(
        "Degradation",
        "Pods that serve less than everything.",
        {"{{job}}: {{level}}": 'sum by (job, level) (voice_degradation_level{level!="normal"}) > 0'},
    )
    yield _metrics(
        "Saturation",
        "Fullest bulkhead of each service, of what it admits.",
        {"{{job}}": f"max by (job) ({fullness})"},
        "percentunit",
    )
    yield _metrics(
        "Targets down",
        "Pods that Prometheus cannot scrape, and what does not answer its probe.",
        {"{{job}}": "count by (job) (up == 0)", "{{job}}: probe": "count by (job) (probe_success == 0)"},
    )


def service_dashboard(services: Iterable[Name]) -> Dashboard:
    """The service dashboard: requests in, calls out, traces and logs of one service."""
    own = f'job="${SERVICE}"'
    beyond = "Share of requests that took longer than the objective for their P95: 5 % may."
    return Dashboard(
        uid="service",
        title="Service",
        services=tuple(services),
        panels=(
            *_served("operation", "operation", own, beyond),
            *_calls(own),
            Panel(title="Traces", description="Latest traces that it takes part in.", shows="traces", width=COLUMNS),
            Panel(
                title="Logs",
                description="What its pods print; a trace id leads to its trace.",
                shows="logs",
                width=COLUMNS,
            ),
        ),
    )


def _calls(own: str) -> Iterator[Panel]:
    """Panels for the calls of one service, and the policies that protect both ends."""
    spans = f'service="${SERVICE}", span_kind="SPAN_KIND_SERVER"'
    latency = _rate("traces_spanmetrics_latency_bucket", "le, span_name", spans)
    attempts = _rate("voice_call_attempts_total", "name", own)
    failed = _rate("voice_call_attempts_total", "name", f'{own}, kind="failed"')
    refused = _rate("voice_rate_limit_requests_total", "operation, key", f'{own}, kind="rejected"')
    yield _metrics(
        "Slow requests",
        "P95 by span of this service: from the spans of sampled traces.",
        {"{{span_name}}": f"histogram_quantile(0.95, {latency})"},
        "s",
    )
    yield _metrics("Calls to others", "Attempts that ended, by call.", {"{{name}}": attempts}, "reqps")
    yield _metrics(
        "Failed calls",
        "Share of attempts that failed, by call.",
        {"{{name}}": _ratio(failed, attempts)},
        "percentunit",
    )
    yield _metrics(
        "What protects the calls",
        "Retries, fallbacks, and calls that a breaker or a bulkhead refused.",
        {
            "{{name}}: retried": _rate("voice_call_retries_total", "name", own),
            "{{name}}: fell back": _rate("voice_call_fallbacks_total", "name", own),
            "{{name}}: breaker": _rate("voice_circuitbreaker_not_permitted_calls_total", "name", own),
            "{{name}}: {{direction}} bulkhead": _rate("voice_bulkhead_rejected_calls_total", "name, direction", own),
        },
        "reqps",
    )
    yield _metrics("Rate limits", "Requests that a limit refused.", {"{{operation}} by {{key}}": refused}, "reqps")
