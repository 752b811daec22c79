"""A closed schema of the Grafana 13 fields that we set.

Sources: `conf/defaults.ini`, and these pages of Grafana's documentation:

- provisioning (data sources, dashboards)
- the data sources Prometheus, Alertmanager, Tempo, Jaeger and Elasticsearch, with their provisioning examples

The schema leaves out dashboards, because the Grafana Foundation SDK encodes them.
"""

from __future__ import annotations

from tests.closed_schema import (
    COUNT,
    FLAG,
    SPAN_OF_TIME,
    TEXT,
    URL,
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
