"""VoiceAssistant's profiles: sizes of servers, retention of telemetry, required and refused settings.

dev fits a laptop: one replica of everything and a fraction of the CPU and memory requests. prod follows the catalogue,
with at least N+1 replicas of each server that can have several. staging has prod's servers, with fewer replicas of the
gateway, the egress proxies and the Collector. A service's maximum of replicas in staging is half of its maximum
in prod, but at least N+1.
"""

from __future__ import annotations

from voice_policies import Bytes, Cpu, Duration, Ratio

from components.namespace import Quota
from components.node import Sizing
from components.observability.elasticsearch_setup import LOGS
from components.observability.jaeger import TRACES
from stack.model.profile import N_PLUS_ONE, DatabaseLimits, Defaults, MetricsStorage, Profile, ProfileName, ServerSize
from stack.voiceassistant import accepted, site

BLOCKS = "tempo-blocks"
"""Tempo's stream of traces, for comparisons with last week."""


def _size(
    cpu: tuple[str, str],
    memory: tuple[str, str],
    *,
    replicas: int = 1,
    max_replicas: int | None = None,
    storage: str | None = None,
) -> ServerSize:
    return ServerSize(
        replicas=replicas,
        max_replicas=max_replicas,
        sizing=Sizing.of(cpu=cpu, memory=memory),
        storage=Bytes(storage) if storage else None,
    )


def _quota(cpu: tuple[str, str], memory: tuple[str, str], pods: int) -> Quota:
    return Quota(
        cpu_requests=Cpu(cpu[0]),
        cpu_limits=Cpu(cpu[1]),
        memory_requests=Bytes(memory[0]),
        memory_limits=Bytes(memory[1]),
        pods=pods,
    )


# Outside dev a datastore's requests equal its limits, because a throttled or evicted datastore takes down its callers.
# `Elasticsearch.conflicts` refuses storage that is too small for the streams. `Collector.conflicts` refuses storage
# that is too small for the longest outage. For each declared series Prometheus needs 8 KiB, and another 8 KiB
# for queries and for pods that come and go. Egress proxies do not decrypt TLS, so one core forwards several Gbit/s.
_DEV_SERVERS = {
    "postgresql": _size(("200m", "2"), ("1Gi", "4Gi"), storage="5Gi"),
    "redis": _size(("50m", "500m"), ("256Mi", "1Gi")),
    "events": _size(("50m", "500m"), ("256Mi", "1536Mi"), storage="10Gi"),
    "consul": _size(("50m", "500m"), ("256Mi", "1Gi"), storage="5Gi"),
    "elasticsearch": _size(("100m", "1"), ("1Gi", "2Gi"), storage="14Gi"),
    site.EGRESS_PROXY: _size(("50m", "1"), ("64Mi", "256Mi")),
    "jaeger": _size(("25m", "1"), ("128Mi", "512Mi")),
    "tempo": _size(("100m", "2"), ("1Gi", "4Gi"), storage="6Gi"),
    "grafana": _size(("10m", "1"), ("64Mi", "512Mi")),
    site.COLLECTOR: _size(("50m", "1"), ("128Mi", "512Mi"), storage="3Gi"),
    site.PROMETHEUS: _size(("100m", "1"), ("512Mi", "2Gi")),
    site.ALERTMANAGER: _size(("5m", "200m"), ("32Mi", "256Mi"), storage="1Gi"),
    "kube-state-metrics": _size(("5m", "200m"), ("32Mi", "256Mi")),
    "blackbox-exporter": _size(("5m", "200m"), ("32Mi", "256Mi")),
    "gateway": _size(("200m", "2"), ("384Mi", "2Gi")),
}
_PROD_SERVERS = {
    "postgresql": _size(("2", "2"), ("4Gi", "4Gi"), replicas=3, storage="50Gi"),
    "redis": _size(("500m", "500m"), ("1Gi", "1Gi"), replicas=3),
    "events": _size(("500m", "500m"), ("1536Mi", "1536Mi"), storage="10Gi"),
    "consul": _size(("500m", "500m"), ("1Gi", "1Gi"), replicas=3, storage="10Gi"),
    "elasticsearch": _size(("2", "2"), ("8Gi", "8Gi"), replicas=3, storage="1Ti"),
    site.EGRESS_PROXY: _size(("250m", "1"), ("256Mi", "512Mi"), replicas=N_PLUS_ONE, max_replicas=4),
    "jaeger": _size(("250m", "1"), ("512Mi", "512Mi"), replicas=N_PLUS_ONE),
    "tempo": _size(("1", "2"), ("4Gi", "4Gi"), storage="50Gi"),
    "grafana": _size(("100m", "1"), ("256Mi", "512Mi")),
    "kibana": _size(("250m", "1"), ("1Gi", "1536Mi"), replicas=N_PLUS_ONE),
    "fluent-bit": _size(("50m", "500m"), ("64Mi", "256Mi"), storage="1Gi"),
    site.COLLECTOR: _size(("1", "2"), ("2Gi", "2Gi"), replicas=3, storage="60Gi"),
    site.PROMETHEUS: _size(("1", "4"), ("8Gi", "8Gi"), replicas=N_PLUS_ONE),
    site.ALERTMANAGER: _size(("50m", "200m"), ("128Mi", "256Mi"), replicas=N_PLUS_ONE, storage="1Gi"),
    "kube-state-metrics": _size(("50m", "200m"), ("128Mi", "256Mi")),
    "blackbox-exporter": _size(("50m", "200m"), ("128Mi", "256Mi")),
    site.VALKEY_EXPORTER: _size(("50m", "200m"), ("64Mi", "128Mi")),
    site.ELASTICSEARCH_EXPORTER: _size(("50m", "200m"), ("64Mi", "128Mi")),
    "gateway": _size(("1", "2"), ("1Gi", "2Gi"), replicas=3, max_replicas=6),
}
# Staging has six nodes. They have no room for more than N+1 replicas of these servers.
_STAGING_SERVERS = {
    **_PROD_SERVERS,
    site.COLLECTOR: _size(("1", "2"), ("2Gi", "2Gi"), replicas=N_PLUS_ONE, storage="60Gi"),
    "gateway": _size(("1", "2"), ("1Gi", "2Gi"), replicas=N_PLUS_ONE),
    site.EGRESS_PROXY: _size(("250m", "1"), ("256Mi", "512Mi"), replicas=N_PLUS_ONE),
}

# Each quota has room for every workload at its maximum with one surge pod (rule D02). It also has room for pods that
# are still stopping (rule H03), because Kubernetes counts a pod until it has ended.
_DEV_QUOTAS = {
    site.DATA: _quota(("2", "10"), ("5Gi", "20Gi"), 24),
    site.OBSERVABILITY: _quota(("2", "24"), ("8Gi", "40Gi"), 24),
    site.EGRESS: _quota(("600m", "6"), ("768Mi", "3Gi"), 6),
    "voice-apps": _quota(("3", "56"), ("12Gi", "90Gi"), 48),
    "voice-gateway": _quota(("700m", "6"), ("2Gi", "6Gi"), 3),
}
_PROD_QUOTAS = {
    site.DATA: _quota(("24", "32"), ("70Gi", "80Gi"), 48),
    site.OBSERVABILITY: _quota(("24", "48"), ("60Gi", "96Gi"), 60),
    site.NODE_AGENTS: _quota(("2", "20"), ("3Gi", "12Gi"), 40),
    site.EGRESS: _quota(("4", "16"), ("4Gi", "8Gi"), 16),
    "voice-apps": _quota(("150", "390"), ("225Gi", "475Gi"), 215),
    "voice-gateway": _quota(("14", "33"), ("14Gi", "30Gi"), 13),
}
_STAGING_QUOTAS = {
    **_PROD_QUOTAS,
    "voice-apps": _quota(("100", "260"), ("150Gi", "320Gi"), 145),
    "voice-gateway": _quota(("6", "13"), ("6Gi", "12Gi"), 5),
}

_REQUIRED = {
    "backups": "PostgreSQL and Consul write their backups to a bucket",
    "trace_bucket": "Tempo keeps its traces in an object store",
}
_WITHDRAWAL = Duration("30s")
"""Time until a cloud's load balancer stops sending requests to a pod: by default three failed checks, 10 s apart."""
BUDGET_RETENTION = Duration("31d")
"""Retention of metrics: the 30 days that an error budget covers, and one day more."""
_METRICS = MetricsStorage(retention=BUDGET_RETENTION, storage=Bytes("120Gi"))
_STAND_IN = "each service runs its own image"

_DEV = Profile(
    name="dev",
    defaults=Defaults(
        log_level="debug",
        trace_sample_ratio=Ratio("100%"),
        mesh=False,
        metrics=MetricsStorage(retention=BUDGET_RETENTION, storage=Bytes("45Gi")),
        # There is no load balancer. Only kube-proxy must stop sending requests.
        ingress_grace=Duration("5s"),
    ),
    accepted_findings=accepted.IN_DEV,
    required={},
    refused={
        "backups": "PostgreSQL writes its dumps to a volume",
        "trace_bucket": "Tempo keeps its traces on a volume",
    },
    service_replicas="one",
    # An idle service needs a fraction of the resources of a loaded one.
    cpu_share=0.1,
    memory_share=0.25,
    load_share=0.01,
    quotas=_DEV_QUOTAS,
    # PostgreSQL admits 200 connections and reserves 13, so 187 remain. The limits of the 8 roles allow 8 × 20 = 160.
    # One pod of each of the 8 services opens 55 connections in total. During a rollout each service has 2 pods, so the
    # services open 2 × 55 = 110. The largest pool has 10 connections, so its service opens 2 × 10 = 20.
    database=DatabaseLimits(poolers=0, pool_size=20),
    servers=_DEV_SERVERS,
    retentions={LOGS: Duration("3d"), TRACES: Duration("3d"), BLOCKS: Duration("1d")},
    load_balancer=False,
    protects_data=False,
    stand_in_secrets=True,
    strict=False,
)
_PROD = Profile(
    name="prod",
    accepted_findings=accepted.IN_PROD,
    defaults=Defaults(
        log_level="info", trace_sample_ratio=Ratio("10%"), mesh=True, metrics=_METRICS, ingress_grace=_WITHDRAWAL
    ),
    required={**_REQUIRED, "notifications": "Alertmanager needs a network to which it may send alerts"},
    refused={"reference_image": _STAND_IN},
    service_replicas="declared",
    load_share=1,
    quotas=_PROD_QUOTAS,
    # PostgreSQL admits 200 connections and reserves 13, so the poolers have 187. The poolers open
    # 8 databases × 2 poolers × 10 = 160.
    database=DatabaseLimits(poolers=2, pool_size=10, max_client_connections=1000),
    servers=_PROD_SERVERS,
    # Jaeger shows recent problems, Tempo allows comparisons with last week.
    retentions={LOGS: Duration("7d"), TRACES: Duration("3d"), BLOCKS: Duration("14d")},
    load_balancer=True,
    protects_data=True,
    stand_in_secrets=False,
    strict=True,
)
_STAGING = Profile(
    **{
        **dict(_PROD),
        "name": "staging",
        "accepted_findings": accepted.BEYOND_DEV,
        "defaults": Defaults(
            log_level="info", trace_sample_ratio=Ratio("50%"), mesh=True, metrics=_METRICS, ingress_grace=_WITHDRAWAL
        ),
        "required": _REQUIRED,
        "refused": {"reference_image": _STAND_IN},
        "service_replicas": "half",
        "load_share": 0.5,
        "quotas": _STAGING_QUOTAS,
        "database": DatabaseLimits(poolers=2, pool_size=10, max_client_connections=600),
        "servers": _STAGING_SERVERS,
        "retentions": {LOGS: Duration("3d"), TRACES: Duration("3d"), BLOCKS: Duration("7d")},
        "protects_data": False,
        "strict": False,
    }
)
PROFILES: dict[ProfileName, Profile] = {profile.name: profile for profile in (_DEV, _STAGING, _PROD)}
