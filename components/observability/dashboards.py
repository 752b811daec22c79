"""Grafana's dashboards, generated: what the platform does as a whole, and what one of its services does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name, Sentence
from components.policy_config import file_text

PROMETHEUS, ALERTMANAGER, TEMPO, JAEGER, ELASTICSEARCH = "prometheus", "alertmanager", "tempo", "jaeger", "logs"
"""Uids of the data sources, the same for ever: dashboards, links and people's bookmarks name them."""
Unit = Literal["reqps", "percentunit", "s", "short"]
COLUMNS, HEIGHT = 24, 8
"""Grafana's grid is 24 wide."""
SCHEMA_VERSION = 42
"""Of the dashboard's JSON model: Grafana 13 reads it and migrates older ones."""
SERVICE = "service"
"""The variable that chooses a service, and the label by which Prometheus knows one is `job`."""


class Query(ClosedModel):
    """One line of PromQL, and what its series are called."""

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
    """What its variable chooses from; without any it has none."""

    @property
    def text(self) -> str:
        """The file that Grafana reads."""
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
    """From left to right, and in the next line what no longer fits."""
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
        # A dot of each sampled request leads to its trace.
        "exemplar": True,
    }


def _log_query() -> dict[str, Any]:
    """What the service's containers print, and what comes of it over OTLP."""
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


def platform_dashboard() -> Dashboard:
    """Every service beside the others: load, failures, time, and what protects them."""
    requests = _rate("voice_operation_requests_total", "job")
    failures = _rate("voice_operation_requests_total", "job", 'kind="failed"')
    seconds = _rate("voice_operation_seconds_total", "job")
    slow = _rate("voice_operation_slow_requests_total", "job")
    fullness = _ratio("voice_bulkhead_in_flight_calls", "voice_bulkhead_max_concurrent_calls")
    edges = _rate("traces_service_graph_request_server_seconds_bucket", "le, client, server")
    return Dashboard(
        uid="platform",
        title="Platform",
        panels=(
            Panel(
                title="Requests",
                description="Requests served, by service.",
                unit="reqps",
                queries=(Query(expression=requests, legend="{{job}}"),),
            ),
            Panel(
                title="Failures",
                description="Share of requests that failed, by service.",
                unit="percentunit",
                queries=(Query(expression=_ratio(failures, requests), legend="{{job}}"),),
            ),
            Panel(
                title="Time",
                description="Mean time of a request, by service.",
                unit="s",
                queries=(Query(expression=_ratio(seconds, requests), legend="{{job}}"),),
            ),
            Panel(
                title="Beyond the objective",
                description="Share of requests that took longer than their operation's objective, by service.",
                unit="percentunit",
                queries=(Query(expression=_ratio(slow, requests), legend="{{job}}"),),
            ),
            Panel(
                title="Time between services",
                description="P95 at the callee, by who calls whom: from the spans of sampled traces.",
                unit="s",
                queries=(Query(expression=f"histogram_quantile(0.95, {edges})", legend="{{client}} → {{server}}"),),
            ),
            Panel(
                title="Open circuit breakers",
                description="Pods whose breaker of a call is open.",
                queries=(
                    Query(
                        expression='sum by (job, name) (voice_circuitbreaker_state{state="open"}) > 0',
                        legend="{{job}}: {{name}}",
                    ),
                ),
            ),
            Panel(
                title="Degradation",
                description="Pods that serve less than everything.",
                queries=(
                    Query(
                        expression='sum by (job, level) (voice_degradation_level{level!="normal"}) > 0',
                        legend="{{job}}: {{level}}",
                    ),
                ),
            ),
            Panel(
                title="Saturation",
                description="Fullest bulkhead of each service, of what it admits.",
                unit="percentunit",
                queries=(
                    Query(
                        expression=f"max by (job) ({fullness})",
                        legend="{{job}}",
                    ),
                ),
            ),
            Panel(
                title="Targets down",
                description="Pods that Prometheus cannot scrape, and what does not answer its probe.",
                queries=(
                    Query(expression="count by (job) (up == 0)", legend="{{job}}"),
                    Query(expression="count by (job) (probe_success == 0)", legend="{{job}}: probe"),
                ),
            ),
        ),
    )


def service_dashboard(services: Iterable[Name]) -> Dashboard:
    """One service, chosen from `services`: what it is asked, what it asks others, and its traces and logs."""
    own = f'job="${SERVICE}"'
    requests = _rate("voice_operation_requests_total", "operation", own)
    failures = _rate("voice_operation_requests_total", "operation", f'{own}, kind="failed"')
    seconds = _rate("voice_operation_seconds_total", "operation", own)
    slow = _rate("voice_operation_slow_requests_total", "operation", own)
    attempts = _rate("voice_call_attempts_total", "name", own)
    return Dashboard(
        uid="service",
        title="Service",
        services=tuple(services),
        panels=(
            Panel(
                title="Requests",
                description="Requests served, by operation.",
                unit="reqps",
                queries=(Query(expression=requests, legend="{{operation}}"),),
            ),
            Panel(
                title="Failures",
                description="Share of requests that failed, by operation.",
                unit="percentunit",
                queries=(Query(expression=_ratio(failures, requests), legend="{{operation}}"),),
            ),
            Panel(
                title="Time",
                description="Mean time of a request, by operation.",
                unit="s",
                queries=(Query(expression=_ratio(seconds, requests), legend="{{operation}}"),),
            ),
            Panel(
                title="Beyond the objective",
                description="Share of requests that took longer than the objective for their P95: 5 % may.",
                unit="percentunit",
                queries=(Query(expression=_ratio(slow, requests), legend="{{operation}}"),),
            ),
            Panel(
                title="Slow requests",
                description="P95 by span of this service: from the spans of sampled traces.",
                unit="s",
                queries=(
                    Query(
                        expression="histogram_quantile(0.95, "
                        + _rate(
                            "traces_spanmetrics_latency_bucket",
                            "le, span_name",
                            f'service="${SERVICE}", span_kind="SPAN_KIND_SERVER"',
                        )
                        + ")",
                        legend="{{span_name}}",
                    ),
                ),
            ),
            Panel(
                title="Calls to others",
                description="Attempts that ended, by call.",
                unit="reqps",
                queries=(Query(expression=attempts, legend="{{name}}"),),
            ),
            Panel(
                title="Failed calls",
                description="Share of attempts that failed, by call.",
                unit="percentunit",
                queries=(
                    Query(
                        expression=_ratio(
                            _rate("voice_call_attempts_total", "name", f'{own}, kind="failed"'), attempts
                        ),
                        legend="{{name}}",
                    ),
                ),
            ),
            Panel(
                title="What protects the calls",
                description="Retries, fallbacks, and calls that a breaker or a bulkhead refused.",
                unit="reqps",
                queries=(
                    Query(expression=_rate("voice_call_retries_total", "name", own), legend="{{name}}: retried"),
                    Query(expression=_rate("voice_call_fallbacks_total", "name", own), legend="{{name}}: fell back"),
                    Query(
                        expression=_rate("voice_circuitbreaker_not_permitted_calls_total", "name", own),
                        legend="{{name}}: breaker",
                    ),
                    Query(
                        expression=_rate("voice_bulkhead_rejected_calls_total", "name, direction", own),
                        legend="{{name}}: {{direction}} bulkhead",
                    ),
                ),
            ),
            Panel(
                title="Rate limits",
                description="Requests that a limit refused.",
                unit="reqps",
                queries=(
                    Query(
                        expression=_rate(
                            "voice_rate_limit_requests_total", "operation, key", f'{own}, kind="rejected"'
                        ),
                        legend="{{operation}} by {{key}}",
                    ),
                ),
            ),
            Panel(title="Traces", description="Latest traces that it takes part in.", shows="traces", width=COLUMNS),
            Panel(
                title="Logs",
                description="What its pods print; a trace id leads to its trace.",
                shows="logs",
                width=COLUMNS,
            ),
        ),
    )
