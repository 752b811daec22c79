"""Datastores: probes, replicas, volumes, PostgreSQL with its pooler and backups, Consul, and scheduled jobs."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics
from stack.voiceassistant.site import DATA

OWN = f'namespace="{DATA}"'
BACKUP = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp"


_EVERY_STORE = Row(
    title="Every store",
    panels=(
        metrics(
            "Answers to probes",
            "1 if the pod answers its probe.",
            {"{{job}} {{pod}}": f"probe_success{{{OWN}}}"},
            red_below=1,
        ),
        metrics(
            "Ready replicas",
            "Share of the declared replicas that are ready.",
            {
                "{{statefulset}}": f"kube_statefulset_status_replicas_ready{{{OWN}}}"
                f" / kube_statefulset_replicas{{{OWN}}}"
            },
            "percentunit",
            red_below=1,
        ),
        metrics(
            "Free space",
            "Share of each volume that is free.",
            {
                "{{persistentvolumeclaim}}": f"kubelet_volume_stats_available_bytes{{{OWN}}}"
                f" / kubelet_volume_stats_capacity_bytes{{{OWN}}}"
            },
            "percentunit",
            red_below=0.1,
        ),
        metrics(
            "Days until full",
            "Free space divided by its rate of decrease over six hours. Empty if the space does not decrease.",
            {
                "{{persistentvolumeclaim}}": f"kubelet_volume_stats_available_bytes{{{OWN}}}"
                f" / (-deriv(kubelet_volume_stats_available_bytes{{{OWN}}}[6h]) > 0)"
            },
            "dtdurations",
            red_below=4 * 86400,
        ),
    ),
)
_POSTGRESQL = Row(
    title="PostgreSQL (staging, prod)",
    panels=(
        metrics(
            "Connections",
            "Share of max_connections that is taken.",
            {
                "{{pod}}": "sum by (pod) (cnpg_backends_total)"
                ' / max by (pod) (cnpg_pg_settings_setting{name="max_connections"})'
            },
            "percentunit",
            red_from=0.9,
        ),
        metrics(
            "Replicas behind",
            "Time that each replica is behind the primary.",
            {"{{pod}}": "cnpg_pg_replication_lag"},
            "s",
            red_from=60,
        ),
        metrics(
            "Segments that wait for the archive",
            "Segments of the write-ahead log that are not archived yet.",
            {"{{pod}}": 'cnpg_collector_pg_wal_archive_status{value="ready"}'},
            red_from=10,
        ),
        metrics(
            "Age of the last base backup",
            "Time since the last base backup that can be restored.",
            {"{{job}}": f"time() - max by (job) ({BACKUP})"},
            "dtdurations",
            red_from=30 * 3600,
        ),
        metrics(
            "Clients that wait for the pooler",
            "Clients that wait until the pooler has a free connection to PostgreSQL, by database.",
            {"{{database}}": "sum by (database) (cnpg_pgbouncer_pools_cl_waiting)"},
            red_from=1,
        ),
        metrics(
            "Replicas that follow the primary",
            "Replicas that stream from the primary. At 0 every write waits.",
            {"{{job}}": "max by (job) (cnpg_pg_replication_streaming_replicas)"},
            red_below=1,
        ),
    ),
)
_CONSUL = Row(
    title="Consul",
    panels=(
        metrics(
            "Leaders",
            "Servers that lead. There should be exactly one.",
            {"leaders": "sum(consul_server_isLeader)"},
            red_below=1,
        ),
        metrics(
            "Failure tolerance",
            "Number of servers that can fail while the cluster still accepts writes.",
            {"{{pod}}": "consul_autopilot_failure_tolerance"},
            red_below=1,
        ),
        metrics(
            "Last contact of the leader",
            "P99 of the time since the leader last reached the other servers.",
            {"{{pod}}": 'consul_raft_leader_lastContact{quantile="0.99"}'},
            "ms",
            red_from=200,
        ),
        metrics(
            "Time of a commit",
            "P99 of the time until most servers have a write on disk.",
            {"{{pod}}": 'consul_raft_commitTime{quantile="0.99"}'},
            "ms",
            red_from=500,
        ),
    ),
)
_SCHEDULED_JOBS = Row(
    title="Scheduled jobs",
    panels=(
        metrics(
            "Time since the last success",
            "Every scheduled job runs at least daily. Suspended jobs are not shown, because only a person starts them.",
            {
                "{{namespace}}/{{cronjob}}": "time() - (kube_cronjob_status_last_successful_time"
                " or kube_cronjob_created) unless on (namespace, cronjob) kube_cronjob_spec_suspend == 1"
            },
            "dtdurations",
            red_from=2 * 86400,
        ),
        metrics(
            "Failed pods of jobs",
            "Failed attempts of each job.",
            {"{{namespace}}/{{job_name}}": "kube_job_status_failed > 0"},
            red_from=1,
        ),
    ),
)


def datastores() -> Dashboard:
    """The dashboard of all datastores."""
    return Dashboard(
        uid="datastores",
        title="Datastores",
        rows=(_EVERY_STORE, _POSTGRESQL, _CONSUL, _SCHEDULED_JOBS),
    )
