from __future__ import annotations

from voice_models.metrics import HISTOGRAMS, OPERATION
from voice_models.metrics import METRICS as MODEL_METRICS
from voice_runtime.metrics import METRICS
from voice_saga import metrics as saga_metrics

from components.mesh import proxy
from components.observability import tempo
from components.observability.kube_state_metrics import METRICS as STATE_METRICS
from components.observability.prometheus import Prometheus
from components.observability.rules import Recording
from components.observability.scrape_jobs import KUBELET_METRICS
from tests.platforms import platform

TARGET = {"job", "instance", "namespace", "pod", "node", "probe"}
"""Labels that Prometheus may add to the series of a scraped target, depending on the job."""
STATE = {
    "kube_pod": {"namespace", "pod", "container", "phase"},
    "kube_node": {"node", "condition", "status"},
    "kube_deployment": {"namespace", "deployment"},
    "kube_statefulset": {"namespace", "statefulset"},
    "kube_job": {"namespace", "job_name"},
    "kube_cronjob": {"namespace", "cronjob"},
    "kube_horizontalpodautoscaler": {"namespace", "horizontalpodautoscaler", "condition", "status"},
}
"""Labels of kube-state-metrics 2.17, copied on 2026-11-30 from its `docs/metrics/`."""
GATEWAY = {
    "apisix_http_status": {"code", "route", "matched_uri", "matched_host", "service", "consumer", "node"},
    "apisix_http_latency_bucket": {"le", "type", "route", "service", "consumer", "node"},
    "apisix_http_first_byte_latency_bucket": {"le", "route"},
    "apisix_bandwidth": {"type", "route", "service", "consumer", "node"},
    "apisix_nginx_http_current_connections": {"state"},
}
"""Labels of APISIX, copied on 2026-11-30 from `apisix/plugins/prometheus/exporter.lua`. Our own function adds the
histogram of the time to the first byte."""
POSTGRESQL = {
    "cnpg_backends_total": {"datname", "usename", "application_name", "state"},
    "cnpg_collector_pg_wal_archive_status": {"value"},
    "cnpg_pg_replication_lag": set(),
    "cnpg_pg_replication_streaming_replicas": set(),
    "cnpg_pg_settings_setting": {"name"},
    "cnpg_pgbouncer_pools_cl_waiting": {"database", "user"},
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp": set(),
}
"""Labels of CloudNativePG 1.30 and plugin-barman-cloud 0.16, from the sources that
`stack/voiceassistant/store_alerts.py` names."""
CONSUL = {
    "consul_server_isLeader": set(),
    "consul_autopilot_healthy": set(),
    "consul_autopilot_failure_tolerance": set(),
    "consul_raft_leader_lastContact": {"quantile"},
    "consul_raft_commitTime": {"quantile"},
}
"""A test reads these metrics from running Consul servers."""
MESH = {name: {"caller", "cluster_name"} for name in proxy.STATISTICS.values()}
FLUENT_BIT = {"fluentbit_output_dropped_records_total": {"name"}}
"""Labels of Fluent Bit, copied on 2026-11-30 from `src/flb_output.c`."""
ENVOY = {
    "envoy_cluster_upstream_cx_active": {"envoy_cluster_name"},
    "envoy_cluster_upstream_cx_connect_fail": {"envoy_cluster_name"},
    "envoy_cluster_upstream_cx_rx_bytes_total": {"envoy_cluster_name"},
    "envoy_cluster_upstream_cx_tx_bytes_total": {"envoy_cluster_name"},
    "envoy_cluster_manager_cds_update_attempt": set(),
    "envoy_cluster_manager_cds_update_success": set(),
    "envoy_listener_manager_lds_update_attempt": set(),
    "envoy_listener_manager_lds_update_success": set(),
    "envoy_listener_no_filter_chain_match": {"envoy_listener_address"},
}
"""A test reads these metrics from a running Envoy."""


def exported() -> dict[str, set[str]]:
    """Every metric that something exports or records, and its labels."""
    models = {metric.name: set(metric.labels) for metric in MODEL_METRICS}
    models |= {f"{histogram.name}_bucket": {"le", *histogram.labels} for histogram in HISTOGRAMS}
    saga = (metric for table in vars(saga_metrics).values() if isinstance(table, tuple) for metric in table)
    runtime = {
        metric.name: set(metric.labels) for metric in (*METRICS, *(each for each in saga if hasattr(each, "read")))
    }
    state = {
        name: next(labels for kind, labels in STATE.items() if name.startswith(f"{kind}_")) for name in STATE_METRICS
    }
    spans = {name: {*tempo.SPAN_LABELS, "le", "source"} for name in tempo.METRICS if "spanmetrics" in name}
    edges = {name: {*tempo.EDGE_LABELS, "le", "source"} for name in tempo.METRICS if "service_graph" in name}
    volumes = {name: {"persistentvolumeclaim"} for name in KUBELET_METRICS}
    own = {"up": set[str](), "probe_success": set[str](), "ALERTS": {"alertname", "alertstate", "severity", "team"}}
    found = own | runtime | state | spans | edges | volumes | GATEWAY | models | POSTGRESQL | CONSUL | MESH
    found |= ENVOY | FLUENT_BIT
    return {**{name: labels | TARGET for name, labels in found.items()}, **recorded()}


def recorded() -> dict[str, set[str]]:
    """Every series that a rule records, and the labels that it may have."""
    (server,) = (each for each in platform("prod").components if isinstance(each, Prometheus))
    names = {rule.name for group in server.groups for rule in group.rules if isinstance(rule, Recording)}
    return {
        name: {"job", "team", "severity", "name", "candidate", *OPERATION, name.partition(":")[0]} for name in names
    }
