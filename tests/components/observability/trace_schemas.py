"""Closed schemas of the Jaeger 2.20.0 and Tempo 3.0.3 fields that we set.

Sources for Jaeger: `cmd/jaeger/internal/all-in-one.yaml`, `cmd/jaeger/config-elasticsearch-auto-rollover.yaml`,
`internal/storage/elasticsearch/config/config.go` and `config_rotation.go`, `internal/storage/v2/memory/config.go`,
`cmd/jaeger/internal/extension/jaegerquery/config.go`; and `memorylimiterprocessor`, `healthcheckv2extension` and
`service/telemetry` of the OpenTelemetry Collector, on which Jaeger is built.
Sources for Tempo: `docs/sources/tempo/configuration/manifest.md`, which lists every option, and Prometheus's
`remote_write`.
"""

from __future__ import annotations

from tests.closed_schema import (
    ADDRESS,
    COUNT,
    FLAG,
    PATH,
    PORT,
    SPAN_OF_TIME,
    TEXT,
    URL,
    ZERO_OR_MORE,
    Schema,
    closed,
    listed,
    one_of,
)

PERCENTAGE: Schema = {"type": "integer", "minimum": 1, "maximum": 100}
ENDPOINT = closed({"endpoint": ADDRESS})
ROTATION = closed(
    {"periodic": closed({"date_layout": one_of("2006-01-02"), "rollover_frequency": one_of("day", "hour")})}
)
INDEX = closed({"shards": COUNT, "replicas": ZERO_OR_MORE, "rotation": ROTATION})
BACKEND: Schema = {
    "oneOf": [
        closed({"memory": closed({"max_traces": COUNT})}),
        closed(
            {
                "elasticsearch": closed(
                    {
                        "server_urls": listed(URL),
                        "auth": closed(
                            {
                                "basic": closed(
                                    {"username": TEXT, "password_file": PATH, "reload_interval": SPAN_OF_TIME}
                                )
                            }
                        ),
                        "max_span_age": SPAN_OF_TIME,
                        "indices": closed(dict.fromkeys(("spans", "services", "dependencies", "sampling"), INDEX)),
                    }
                )
            }
        ),
    ]
}
JAEGER = closed(
    {
        "service": closed(
            {
                "extensions": listed(one_of("healthcheckv2", "jaeger_storage", "jaeger_query")),
                "pipelines": closed(
                    {
                        "traces": closed(
                            {
                                "receivers": listed(one_of("otlp")),
                                "processors": listed(one_of("memory_limiter")),
                                "exporters": listed(one_of("jaeger_storage_exporter")),
                            }
                        )
                    }
                ),
                "telemetry": closed(
                    {
                        "resource": closed({"service.name": TEXT}),
                        "metrics": closed(
                            {
                                "level": one_of("none", "basic", "normal", "detailed"),
                                "readers": listed(
                                    closed(
                                        {
                                            "pull": closed(
                                                {
                                                    "exporter": closed(
                                                        {"prometheus": closed({"host": TEXT, "port": PORT})}
                                                    )
                                                }
                                            )
                                        }
                                    )
                                ),
                            }
                        ),
                        "logs": closed(
                            {"level": one_of("debug", "info", "warn", "error"), "encoding": one_of("json", "console")}
                        ),
                    }
                ),
            }
        ),
        "extensions": closed(
            {
                "healthcheckv2": closed({"use_v2": FLAG, "http": ENDPOINT}),
                "jaeger_storage": closed({"backends": closed({"traces": BACKEND})}),
                "jaeger_query": closed({"storage": closed({"traces": one_of("traces")}), "http": ENDPOINT}),
            }
        ),
        "receivers": closed({"otlp": closed({"protocols": closed({"grpc": ENDPOINT})})}),
        "processors": closed(
            {
                "memory_limiter": closed(
                    {
                        "check_interval": SPAN_OF_TIME,
                        "limit_percentage": PERCENTAGE,
                        "spike_limit_percentage": PERCENTAGE,
                    }
                )
            }
        ),
        "exporters": closed({"jaeger_storage_exporter": closed({"trace_storage": one_of("traces")})}),
    }
)
RETENTION = closed({"block_retention": SPAN_OF_TIME})
WAL = closed({"path": PATH})
STORAGE: Schema = {
    "oneOf": [
        closed({"wal": WAL, "backend": one_of("local"), "local": closed({"path": PATH})}),
        closed({"wal": WAL, "backend": one_of("s3"), "s3": closed({"bucket": TEXT, "endpoint": ADDRESS})}),
    ]
}
TEMPO = closed(
    {
        "server": closed(
            {
                "http_listen_port": PORT,
                "log_format": one_of("logfmt", "json"),
                "log_level": one_of("debug", "info", "warn", "error"),
            }
        ),
        "distributor": closed({"receivers": closed({"otlp": closed({"protocols": closed({"grpc": ENDPOINT})})})}),
        "backend_scheduler": closed(
            {"provider": closed({"compaction": closed({"compaction": RETENTION})}), "local_work_path": PATH}
        ),
        "backend_worker": closed({"compaction": RETENTION}),
        "live_store": closed({"wal": WAL, "shutdown_marker_dir": PATH}),
        "metrics_generator": closed(
            {
                "registry": closed({"external_labels": closed({"source": TEXT})}),
                "storage": closed({"path": PATH, "remote_write": listed(closed({"url": URL, "send_exemplars": FLAG}))}),
            }
        ),
        "storage": closed({"trace": STORAGE}),
        "overrides": closed(
            {
                "defaults": closed(
                    {
                        "metrics_generator": closed(
                            {"processors": listed(one_of("service-graphs", "span-metrics", "host-info"))}
                        )
                    }
                )
            }
        ),
        "usage_report": closed({"reporting_enabled": FLAG}),
    }
)
