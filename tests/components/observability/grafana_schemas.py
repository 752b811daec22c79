"""A closed schema of the Grafana 13 fields that we set.

`conf/defaults.ini`, and of its documentation: provisioning (data sources, dashboards), and the pages of the Prometheus,
Alertmanager, Tempo, Jaeger and Elasticsearch data sources with their provisioning examples; for dashboards, the JSON
model and the panels `timeseries`, `logs` and `table`.
"""

from __future__ import annotations

from typing import Any

from tests.closed_schema import (
    COUNT,
    FLAG,
    SPAN_OF_TIME,
    TEXT,
    URL,
    ZERO_OR_MORE,
    Schema,
    closed,
    listed,
    one_of,
)

TRUTH = one_of("true", "false")
FILE: Schema = {"type": "string", "pattern": r"^\$__file\{/etc/voice/secrets/[a-z/-]+\}$"}
INI = closed(
    {
        "server": closed({"http_port": {"type": "string", "pattern": r"^\d+$"}}),
        "paths": closed({"data": TEXT, "provisioning": TEXT}),
        "security": closed(
            {
                "admin_password": FILE,
                "secret_key": FILE,
                "disable_gravatar": TRUTH,
                "cookie_samesite": one_of("lax", "strict", "none", "disabled"),
            }
        ),
        "users": closed({"allow_sign_up": TRUTH, "default_theme": one_of("dark", "light", "system")}),
        "auth.anonymous": closed({"enabled": TRUTH}),
        "analytics": closed(
            dict.fromkeys(("reporting_enabled", "check_for_updates", "check_for_plugin_updates"), TRUTH)
        ),
        "plugins": closed({"preinstall_disabled": TRUTH}),
        "snapshots": closed({"external_enabled": TRUTH}),
        "unified_alerting": closed({"enabled": TRUTH}),
        "log": closed({"mode": one_of("console", "file", "syslog")}),
        "log.console": closed({"format": one_of("text", "console", "json")}),
    }
)
UID = one_of("prometheus", "alertmanager", "tempo", "jaeger", "logs")
AROUND = {"spanStartTimeShift": SPAN_OF_TIME, "spanEndTimeShift": SPAN_OF_TIME}
TO_LOGS = closed({"datasourceUid": UID, "customQuery": FLAG, "query": TEXT, **AROUND})
TO_METRICS = closed(
    {
        "datasourceUid": UID,
        "tags": listed(closed({"key": TEXT, "value": TEXT})),
        "queries": listed(closed({"name": TEXT, "query": TEXT})),
        **AROUND,
    }
)
NODE_GRAPH = closed({"enabled": FLAG})


def source(kind: str, settings: Schema, more: dict[str, Schema] | None = None) -> Schema:
    return closed(
        {
            "name": TEXT,
            "type": one_of(kind),
            "uid": UID,
            "url": URL,
            "access": one_of("proxy"),
            "editable": FLAG,
            "jsonData": settings,
            **(more or {}),
        }
    )


SOURCES: list[Schema] = [
    source(
        "prometheus",
        closed(
            {
                "httpMethod": one_of("GET", "POST"),
                "alertmanagerUid": UID,
                "exemplarTraceIdDestinations": listed(closed({"name": TEXT, "datasourceUid": UID})),
            }
        ),
        {"isDefault": FLAG},
    ),
    source(
        "alertmanager",
        closed({"implementation": one_of("prometheus", "mimir", "cortex"), "handleGrafanaManagedAlerts": FLAG}),
    ),
    source(
        "tempo",
        closed(
            {
                "tracesToLogsV2": TO_LOGS,
                "nodeGraph": NODE_GRAPH,
                "serviceMap": closed({"datasourceUid": UID}),
                "tracesToMetrics": TO_METRICS,
            }
        ),
    ),
    source("jaeger", closed({"tracesToLogsV2": TO_LOGS, "nodeGraph": NODE_GRAPH})),
    source(
        "elasticsearch",
        closed(
            {
                "index": TEXT,
                "timeField": TEXT,
                "logMessageField": TEXT,
                "logLevelField": TEXT,
                "dataLinks": listed(
                    closed({"field": TEXT, "url": TEXT, "urlDisplayLabel": TEXT, "datasourceUid": UID})
                ),
            }
        ),
        {"basicAuth": FLAG, "basicAuthUser": TEXT, "secureJsonData": closed({"basicAuthPassword": FILE})},
    ),
]
DATA_SOURCES = closed(
    {"apiVersion": one_of(1), "prune": FLAG, "datasources": {"type": "array", "prefixItems": SOURCES, "items": False}}
)
PROVIDERS = closed(
    {
        "apiVersion": one_of(1),
        "providers": listed(
            closed(
                {
                    "name": TEXT,
                    "folder": TEXT,
                    "type": one_of("file"),
                    "disableDeletion": FLAG,
                    "allowUiUpdates": FLAG,
                    "updateIntervalSeconds": COUNT,
                    "options": closed({"path": TEXT}),
                }
            )
        ),
    }
)


def panel(kind: str, plugin: str, target: Schema, more: dict[str, Any] | None = None) -> Schema:
    grid = closed({"x": ZERO_OR_MORE, "y": ZERO_OR_MORE, "w": {**COUNT, "maximum": 24}, "h": COUNT})
    return closed(
        {
            "id": COUNT,
            "title": TEXT,
            "description": TEXT,
            "gridPos": grid,
            "type": one_of(kind),
            "datasource": closed({"type": one_of(plugin), "uid": UID}),
            "targets": listed(target),
            **(more or {}),
        }
    )


REF: Schema = {"type": "string", "pattern": "^[A-Z]$"}
PANELS: list[Schema] = [
    panel(
        "timeseries",
        "prometheus",
        closed({"refId": REF, "expr": TEXT, "legendFormat": TEXT, "exemplar": FLAG}),
        {
            "fieldConfig": closed(
                {
                    "defaults": closed(
                        {"unit": one_of("reqps", "percentunit", "s", "short"), "min": {"type": "number"}}
                    ),
                    "overrides": {"type": "array", "maxItems": 0},
                }
            )
        },
    ),
    panel(
        "logs",
        "elasticsearch",
        closed(
            {
                "refId": REF,
                "query": TEXT,
                "metrics": listed(closed({"id": TEXT, "type": one_of("logs"), "settings": closed({"limit": TEXT})})),
            }
        ),
    ),
    panel(
        "table",
        "tempo",
        closed(
            {
                "refId": REF,
                "queryType": one_of("traceql", "traceqlSearch", "serviceMap"),
                "query": TEXT,
                "tableType": one_of("traces", "spans", "raw"),
                "limit": COUNT,
            }
        ),
    ),
]
VARIABLE = closed(
    {
        "name": TEXT,
        "label": TEXT,
        "type": one_of("custom"),
        "query": TEXT,
        "current": closed({"text": TEXT, "value": TEXT}),
        "multi": FLAG,
        "includeAll": FLAG,
    }
)
DASHBOARD = closed(
    {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "title": TEXT,
        "tags": listed(TEXT),
        "schemaVersion": {**COUNT, "maximum": 42},
        "timezone": one_of("browser", "utc"),
        "editable": FLAG,
        "refresh": SPAN_OF_TIME,
        "time": closed({"from": TEXT, "to": TEXT}),
        "templating": closed({"list": {"type": "array", "items": VARIABLE}}),
        "panels": listed({"oneOf": PANELS}),
    }
)
