"""Alerts on stores, from the metrics of their own exporters.

The metric names come from the exporters' sources, read on 2026-11-30: CloudNativePG 1.30 `config/manager/
default-monitoring.yaml`, `pkg/management/postgres/webserver/metricserver/pg_collector.go` and
`pkg/management/pgbouncer/metricsserver/pools.go`; plugin-barman-cloud 0.16 `web/docs/observability.md`; redis_exporter
`exporter/exporter.go`; elasticsearch_exporter `collector/{cluster_health,nodes}.go`. A test reads Consul's metric
names from a running Consul.
"""

from __future__ import annotations

from stack.voiceassistant.catalog.dependencies import ELASTICSEARCH, EVENTS, POSTGRESQL, REDIS
from stack.voiceassistant.platform_team import platform_alert

__all__ = ["ALERTS_BY_JOB", "ALERTS_BY_STORE", "VALKEY"]

_BACKUP = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp"
_FAILED_BACKUP = "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp"
_ARCHIVED, _NOT_ARCHIVED = (f"cnpg_pg_stat_archiver_last_{each}_time" for each in ("archived", "failed"))
_POD = "{{ $labels.namespace }}/{{ $labels.pod }}"


def _absent(metric: str, job: str) -> str:
    """An expression that is true while the job is declared but does not export the metric."""
    return f"max by (job) (target:declared{{job='{job}'}}) unless on (job) {metric}"


_POSTGRESQL_ALERTS = (
    platform_alert(
        "PostgresqlDown",
        "critical",
        "cnpg_collector_up == 0",
        "2m",
        f"{_POD}: the instance manager runs, but PostgreSQL does not answer it",
        "Read the pod's log. `kubectl cnpg status` shows the primary, and whether a failover is in progress",
    ),
    platform_alert(
        "PostgresqlWritesBlocked",
        "critical",
        # The primary waits for one replica before it acknowledges a write (`dataDurability: required`).
        "max by (job, namespace) (cnpg_pg_replication_streaming_replicas) < 1",
        "2m",
        "{{ $labels.job }}: no replica follows the primary, so every write waits",
        "`kubectl cnpg status` names the replicas. Read a replica's log: its volume may be full, or its node lost",
    ),
    platform_alert(
        "PostgresqlReplicaBehind",
        "warning",
        "cnpg_pg_replication_lag > 60",
        "5m",
        f"{_POD} is {{{{ $value | humanizeDuration }}}} behind the primary",
        "Look for a long transaction on the replica, and for a disk that is slower than the primary's",
    ),
    platform_alert(
        "PostgresqlArchiveFailing",
        "critical",
        f"max by (job) ({_NOT_ARCHIVED}) > max by (job) ({_ARCHIVED}) or {_absent(_ARCHIVED, 'postgresql')}",
        "5m",
        "{{ $labels.job }} does not archive its write-ahead log. A recovery would lose the newest writes",
        "Read the log of the primary's sidecar plugin-barman-cloud: an expired key or a full bucket is the usual cause",
    ),
    platform_alert(
        "PostgresqlArchiveBehind",
        "warning",
        'max by (job, namespace, pod) (cnpg_collector_pg_wal_archive_status{value="ready"}) > 10',
        "10m",
        f"{_POD}: {{{{ $value | humanize }}}} segments of the write-ahead log wait to be archived",
        "Compare the write rate with the upload rate: the log's volume fills if the upload is slower",
    ),
    platform_alert(
        "PostgresqlBackupOverdue",
        "critical",
        # A backup runs every 24 hours. Six more hours leave time for the backup itself and a second attempt.
        f"time() - max by (job) ({_BACKUP}) > 30 * 3600 or {_absent(_BACKUP, 'postgresql')}",
        "1h",
        "{{ $labels.job }}: the last base backup is older than 30 hours, or there is none",
        "`kubectl get backups` shows the last backups. Read the error of the newest one, then start a backup by hand",
    ),
    platform_alert(
        "PostgresqlBackupFailed",
        "warning",
        f"max by (job) ({_FAILED_BACKUP}) > max by (job) ({_BACKUP})",
        "5m",
        "{{ $labels.job }}: the last base backup failed",
        "`kubectl describe backup` shows the error; then start a backup by hand; see docs/backup.md",
    ),
    platform_alert(
        "PostgresqlSaturated",
        "warning",
        "sum by (job, namespace, pod) (cnpg_backends_total) > 0.9 *"
        ' max by (job, namespace, pod) (cnpg_pg_settings_setting{name="max_connections"})',
        "5m",
        f"{_POD}: {{{{ $value | humanize }}}} connections are open, above 90 % of max_connections",
        "`pg_stat_activity` shows the clients that hold connections. The usual cause: a service bypasses the pooler",
    ),
)
_POOLER_ALERTS = (
    platform_alert(
        "PoolerSaturated",
        "warning",
        "sum by (job, namespace, pod, database) (cnpg_pgbouncer_pools_cl_waiting) > 0",
        "5m",
        f"{_POD}: {{{{ $value | humanize }}}} clients of {{{{ $labels.database }}}} wait for a connection",
        "Look for slow queries of this database first. A larger pool must fit the role's connection limit",
    ),
)
_VALKEY_ALERTS = (
    platform_alert(
        "ValkeyDown",
        "critical",
        "redis_up == 0",
        "2m",
        "{{ $labels.instance }} does not answer its exporter",
        "Is the pod ready? Read its log: a server answers no client while it loads its append-only file",
    ),
    platform_alert(
        "ValkeyReplicaUnlinked",
        "warning",
        "redis_master_link_up == 0",
        "5m",
        "{{ $labels.instance }} has lost its primary, so it receives no writes",
        "Read the logs of this replica and of its primary. The usual cause: a full synchronisation never ends",
    ),
    platform_alert(
        "ValkeyPrimaryAlone",
        "critical",
        # A primary without a replica refuses writes (`min-replicas-to-write 1`). Single servers have no replicas.
        'redis_connected_slaves{instance=~".*-node-.*"} == 0 and on (instance) redis_instance_info{role="master"}',
        "2m",
        "{{ $labels.instance }} is a primary without a replica, so it refuses writes",
        "`valkey-cli -p 26379 sentinel replicas` on a Sentinel names the replicas. Read the log of each replica",
    ),
    platform_alert(
        "ValkeyAppendFailing",
        "critical",
        "redis_aof_last_write_status == 0 or redis_aof_last_bgrewrite_status == 0",
        "1m",
        "{{ $labels.instance }} cannot write or rewrite its append-only file. If writing fails, Valkey"
        " refuses clients' writes",
        "Is the server's volume full? Then grow the claim, and watch the next rewrite of the file",
    ),
    platform_alert(
        "ValkeyConnectionsRefused",
        "warning",
        "increase(redis_rejected_connections_total[10m]) > 0",
        "5m",
        "{{ $labels.instance }} refuses connections: its maximum of clients is reached",
        "`valkey-cli client list` shows the connected clients. The usual cause: a client without a connection pool",
    ),
)
_EVENT_STREAM_ALERTS = (
    platform_alert(
        "ValkeyMemoryFull",
        "warning",
        # The cache evicts keys when it is full. Event streams have no eviction.
        'redis_memory_used_bytes{instance=~"events.*"} / (redis_memory_max_bytes > 0) > 0.8',
        "10m",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the memory is used, and Valkey evicts no event",
        "Find the largest stream (`MEMORY USAGE`). Shrink its payloads or raise the memory",
    ),
)
_ELASTICSEARCH_ALERTS = (
    platform_alert(
        "ElasticsearchRed",
        "critical",
        'elasticsearch_cluster_health_status{color="red"} == 1'
        f" or {_absent('elasticsearch_cluster_health_status', 'elasticsearch-exporter')}",
        "2m",
        "Elasticsearch is red or its health is unknown: searches may miss data",
        "`GET _cluster/allocation/explain` says why a primary shard has no node",
    ),
    platform_alert(
        "ElasticsearchYellow",
        "warning",
        'elasticsearch_cluster_health_status{color="yellow"} == 1',
        "30m",
        "Elasticsearch is yellow: the loss of one more node may lose data",
        "`GET _cluster/allocation/explain` says why a replica has no node; a node may be missing, or its disk full",
    ),
    platform_alert(
        "ElasticsearchHeapFull",
        "warning",
        'elasticsearch_jvm_memory_used_bytes{area="heap"} / elasticsearch_jvm_memory_max_bytes{area="heap"} > 0.9',
        "15m",
        "{{ $labels.name }}: {{ $value | humanizePercentage }} of the heap is used, so searches pause",
        "`GET _nodes/hot_threads` shows the work. Shorten the retention of logs, or give the nodes more memory",
    ),
)
_CONSUL_ALERTS = (
    platform_alert(
        "ConsulWithoutLeader",
        "critical",
        f"sum by (job) (consul_server_isLeader) == 0 or {_absent('consul_server_isLeader', 'consul')}",
        "2m",
        "Consul has no leader and refuses registrations and writes, or Prometheus gets no metrics from Consul",
        "`consul operator raft list-peers` shows the leader. If there is one, permit the scrape: see docs/edges.md",
    ),
    platform_alert(
        "ConsulUnhealthy",
        "warning",
        "min by (job) (consul_autopilot_healthy) == 0",
        "5m",
        "Consul's leader counts at least one server as failed or behind. If one more server fails, Consul may stop",
        "`consul operator autopilot state` names the server. Look at its pod, then at its volume",
    ),
    platform_alert(
        "ConsulRaftContactLate",
        "warning",
        # HashiCorp's guide "Monitor Consul server telemetry": above 200 ms servers may elect another leader.
        'max by (job) (consul_raft_leader_lastContact{quantile="0.99"}) > 200',
        "10m",
        "Consul's leader last reached a server {{ $value | humanize }} ms ago (P99), so elections may follow",
        "Compare the servers' CPU throttling and the network between their nodes",
    ),
    platform_alert(
        "ConsulCommitsSlow",
        "warning",
        # A commit is one write to the disks of two of three servers. 500 ms is our own limit.
        'max by (job) (consul_raft_commitTime{quantile="0.99"}) > 500',
        "10m",
        "Consul commits a write in {{ $value | humanize }} ms (P99)",
        "Compare the latency of the servers' volumes. A full or shared disk is the usual cause",
    ),
)
VALKEY = "valkey"
"""The scrape job of all Valkey servers, which Prometheus reads through their exporter."""
ALERTS_BY_JOB = {
    "postgresql": _POSTGRESQL_ALERTS,
    "postgresql-pooler": _POOLER_ALERTS,
    VALKEY: (*_VALKEY_ALERTS, *_EVENT_STREAM_ALERTS),
    "consul": _CONSUL_ALERTS,
    "elasticsearch-exporter": _ELASTICSEARCH_ALERTS,
}
"""Scrape job → the alerts on its metrics."""
ALERTS_BY_STORE = {
    POSTGRESQL.name: (*_POSTGRESQL_ALERTS, *_POOLER_ALERTS),
    REDIS.name: _VALKEY_ALERTS,
    EVENTS.name: (*_VALKEY_ALERTS, *_EVENT_STREAM_ALERTS),
    ELASTICSEARCH.name: _ELASTICSEARCH_ALERTS,
}
"""Store → the alerts that its page of the runbook lists."""
