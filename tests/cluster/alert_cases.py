"""Synthetic series for every alert: series for which the alert fires, and similar series for which it stays silent.

The values have promtool's notation, with one sample a minute: `0+100x120` grows by 100 a minute for two hours.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from components.node import Dependency, Host
from stack.model.policy_bundles import bundle_digests
from stack.voiceassistant import alerts, site
from stack.voiceassistant.tiers.observability import scraped
from tests.platforms import platform

Series = dict[str, str]
Labels = dict[str, str]
DAY = 86_400


@dataclass(frozen=True)
class Case:
    firing: Series
    silent: Series | None
    """`None` for the alert that always fires."""
    at: str
    labels: list[Labels] = field(default_factory=list)


def _labels(job: str, **labels: str) -> Labels:
    services = {service.name: service for service in platform("prod").graph.services}
    spaces = {target.name: target.namespace for target in _targets()}
    if job in services:
        severity = "critical" if services[job].tier == "core" else "warning"
    else:
        watching = (site.OBSERVABILITY, site.NODE_AGENTS)
        watched = job not in {*PATH_PROBES, "valkey"} and spaces.get(job, site.OBSERVABILITY) in watching
        severity = "warning" if watched else "critical"
    return {"job": job, **labels, "team": alerts.TEAMS.get(job, "platform"), "severity": severity}


def _targets() -> Iterator["_Target"]:
    found = platform("prod")
    return (_Target(each.name, each.namespace) for each in scraped(found.graph, found.environment, found.links))


@dataclass(frozen=True)
class _Target:
    name: str
    namespace: str


def _operations() -> Iterator[tuple[str, str]]:
    for service in platform("prod").graph.services:
        yield from ((service.name, each.name) for each in service.operations)


def _routes() -> Iterator[tuple[str, str, float]]:
    graph = platform("prod").graph
    assert graph.gateway
    names = {service.name for service in graph.services}
    for edge in graph.edges_from(graph.gateway):
        if edge.callee.name in names:
            yield edge.operation.name, edge.callee.name, edge.operation.latency.seconds


def _sessions() -> set[str]:
    """Routes whose requests last as long as their sessions. No latency objective applies to them."""
    graph = platform("prod").graph
    assert graph.gateway
    return {found.name for found in graph.gateway.operations if found.transport == "websocket"}


def _series(metric: str, values: str, /, **labels: str) -> Series:
    matched = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {f"{metric}{{{matched}}}": values}


def _joined(*parts: Series) -> Series:
    return {key: value for part in parts for key, value in part.items()}


def _requests(failed: int) -> Series:
    return _joined(
        *(
            _series("voice_operation_requests_total", f"0+{count}x120", job=job, operation=operation, kind=kind)
            for job, operation in _operations()
            for kind, count in (("successful", 10_000), ("failed", failed))
        )
    )


def _slow(count: int) -> Series:
    """Every operation has 100 successful and 100 cancelled requests a minute. `count` successful ones are too slow."""
    return _joined(
        *(
            _series("voice_operation_requests_total", "0+100x60", job=job, operation=operation, kind=kind)
            | _series("voice_operation_slow_requests_total", f"0+{count}x60", job=job, operation=operation)
            for job, operation in _operations()
            for kind in ("successful", "cancelled")
        )
    )


def _statuses(code: str, share: float) -> Series:
    return _joined(
        *(
            _series("apisix_http_status", f"0+{count}x120", route=route, code=status)
            for route, _, _ in _routes()
            for status, count in (("200", round(10_000 * (1 - share))), (code, round(10_000 * share)))
        )
    )


def _latencies(within: int, histogram: str = "latency", **labels: str) -> Series:
    """A hundred requests a minute; `within` of them end within the objective, and all within twice the objective.

    The objective of the first byte is 300 ms (`FIRST_FRAME` in the catalogue's flows).
    """
    return _joined(
        *(
            _series(f"apisix_http_{histogram}_bucket", f"0+{count}x120", route=route, le=le, **labels)
            | _series(f"apisix_http_{histogram}_count", "0+100x120", route=route, **labels)
            for route, _, seconds in _routes()
            for le, count in (
                (f"{seconds * 1000:.1f}", within),
                (f"{seconds * 2000:.1f}", 100),
                ("300.0", within),
                ("+Inf", 100),
            )
        )
    )


def _for_days(series: Series) -> Series:
    """Extend the series to eight hours, longer than the short windows (2 h and 6 h) of the alerts `…ForDays`."""
    return {name: values.rpartition("x")[0] + "x480" for name, values in series.items()}


def _as_warning(labels: Labels) -> Labels:
    return {**labels, "severity": "warning"}


def _load(share: float) -> Series:
    return _joined(
        *(
            _series("up", "1x60", job=service.name, instance="a")
            | _series(
                "voice_operation_requests_total",
                f"0+{60 * service.capacity.per_second * share}x60",
                job=service.name,
                operation=service.operations[0].name,
                kind="successful",
            )
            for service in platform("prod").graph.services
        )
    )


def _jobs() -> list[str]:
    return [service.name for service in platform("prod").graph.services]


def _each(jobs: list[str], make: Callable[[str], Series]) -> Series:
    return _joined(*map(make, jobs))


def _up(value: int) -> Series:
    return _each(_scrape_jobs(), lambda job: _series("up", f"{value}x30", job=job, instance="a"))


def _scrape_jobs() -> list[str]:
    return [*(target.name for target in _targets()), "kubelet", "mesh-proxy", "valkey", *PROBED_HOSTS]


def _servers(*, failed: int, after: int = 0) -> Series:
    """The state of every job: `after + 1` successful scrapes or probes, `failed` failed ones, then successful ones."""

    def metric(job: str) -> str:
        own = {"postgresql": "cnpg_collector_up", "valkey": "redis_up"}
        return own.get(job) or ("probe_success" if job in PROBED else "up")

    values = f"1x{after} 0x{failed - 1} 1x{600 - after}"
    return _each(_scrape_jobs(), lambda job: _series(metric(job), values, job=job, instance="a"))


def _flows(share: float) -> Series:
    bad, good = round(10_000 * share), round(10_000 * (1 - share))
    voice = {"job": "voice-engine", "operation": "dialogue"}
    plain = {"identity-service-login", "conversation-service-list", "knowledge-service-search"}
    kept = {"job": "conversation-service", "name": "ai-orchestrator.answer"}
    return _joined(
        *(
            _series("apisix_http_status", f"0+{count}x120", route=route, code=code)
            for route in plain
            for code, count in (("200", good), ("503", bad))
        ),
        *(
            _series("voice_operation_requests_total", f"0+{count}x120", **voice, kind=kind)
            for kind, count in (("successful", good), ("failed", bad))
        ),
        # The fallback stores the message, so the route answers 200 although the flow fails.
        _series("apisix_http_status", "0+10000x120", route="conversation-service-send", code="200"),
        _series("voice_call_fallbacks_total", f"0+{bad}x120", **kept),
    )


def _first_messages(late: int) -> Series:
    return _series("voice_call_first_messages_total", "0+100x120", **SPEECH) | _series(
        "voice_call_late_first_messages_total", f"0+{late}x120", **SPEECH
    )


def _attempts(failed: int) -> Series:
    return _joined(
        *(
            _series("voice_call_attempts_total", f"0+{count}x120", job="any", name=f"{name}.use", kind=kind)
            for name in EXTERNAL
            for kind, count in (("successful", 10_000 - failed), ("failed", failed))
        )
    )


def _probes(value: int) -> Series:
    return _each(PROBED, lambda job: _series("probe_success", f"{value}x30", job=job))


def _slots(taken: int) -> Series:
    labels = {"name": "redis.access", "direction": "outbound"}
    return _each(
        _jobs(),
        lambda job: (
            _series("voice_bulkhead_in_flight_calls", f"{taken}x30", job=job, **labels)
            | _series("voice_bulkhead_max_concurrent_calls", "10x30", job=job, **labels)
        ),
    )


def _breakers(state: str) -> Series:
    return _each(
        _jobs(),
        lambda job: _joined(
            *(
                _series("voice_circuitbreaker_state", f"{each == state:d}x30", job=job, name=CALL["name"], state=each)
                for each in ("closed", "open", "half_open")
            )
        ),
    )


def _counted(metric: str, step: int, **labels: str) -> Series:
    return _each(_jobs(), lambda job: _series(metric, f"0+{step}x60", job=job, **labels))


def _valued(metric: str, value: int, **labels: str) -> Series:
    return _each(_jobs(), lambda job: _series(metric, f"{value}x60", job=job, **labels))


def _bundles(*digests: str) -> Series:
    return _joined(
        *(
            _valued("voice_policy_info", 1, instance=str(pod), digest=digest, service="any")
            for pod, digest in enumerate(digests)
        )
    )


def _of_jobs(**labels: str) -> list[Labels]:
    return [_labels(job, **labels) for job in _jobs()]


def _dead_letters(values: str) -> Series:
    return _series("voice_stream_dead_letters_total", values, **LETTERS, consumer="indexing-service")


def _mounted(*digests: str) -> Series:
    return _joined(
        *(
            _valued("voice_policy_mounted_info", 1, instance=str(pod), digest=digest)
            for pod, digest in enumerate(digests)
        )
    )


def _declared(metric: str) -> Series:
    digests = bundle_digests(platform("prod").graph, platform("prod").environment)
    return _joined(*(_series(metric, "1x60", job=job, digest=digest) for job, digest in digests.items()))


def _called(chosen: int) -> Series:
    """Ten thousand requests a minute of every operation and route. Only model-router.choose has `chosen` a minute."""
    requests = _requests(failed=0)
    (choice,) = (name for name in requests if 'job="model-router"' in name and 'kind="successful"' in name)
    return requests | {choice: f"0+{chosen}x120"} | _statuses("500", 0)


def _proxies(metric: str, values: str) -> Series:
    return _joined(*(_series(metric, values, job="mesh-proxy", pod=job, caller=job, **DESTINATION) for job in _jobs()))


def _sagas(parked: int) -> Series:
    """Unfinished sagas. Both replicas report the same numbers, because they share a journal."""
    return _joined(
        *(
            _series(
                "voice_saga_unfinished",
                f"{count}x30",
                job=SAGA["job"],
                instance=replica,
                saga=SAGA["saga"],
                state=state,
            )
            for replica in ("a", "b")
            for state, count in (("parked", parked), ("waiting", 7))
        )
    )


def _replicas(current: int, minimum: int = 2) -> Series:
    metric = "kube_horizontalpodautoscaler"
    labels = {"namespace": "voice-apps", "horizontalpodautoscaler": "rag-engine"}
    return (
        _series(f"{metric}_status_current_replicas", f"{current}x60", **labels)
        | _series(f"{metric}_spec_max_replicas", "5x60", **labels)
        | _series(f"{metric}_spec_min_replicas", f"{minimum}x60", **labels)
    )


def _ready(replicas: int) -> Series:
    return _series("kube_deployment_spec_replicas", "2x60", **DEPLOYMENT) | _series(
        "kube_deployment_status_replicas_available", f"{replicas}x60", **DEPLOYMENT
    )


def _scaling(active: str) -> Series:
    metric, condition = "kube_horizontalpodautoscaler_status_condition", {"condition": "ScalingActive"}
    return _joined(
        *(
            _series(metric, f"{status == active:d}x60", **AUTOSCALER, **condition, status=status)
            for status in ("true", "false", "unknown")
        )
    )


def _volume(available: str) -> Series:
    labels = {"namespace": "voice-data", "persistentvolumeclaim": "data-events-0"}
    return _series("kubelet_volume_stats_available_bytes", available, **labels) | _series(
        "kubelet_volume_stats_capacity_bytes", "1000x600", **labels
    )


def _certificate(days: int) -> Series:
    return _joined(
        *(
            _series("probe_ssl_earliest_cert_expiry", f"{days * DAY}x120", instance=each["instance"])
            for each in CERTIFIED
        )
    )


def _queue(size: int) -> Series:
    labels = {"job": "otel-collector", "pod": "otel-collector-0", "exporter": "otlp_grpc/jaeger"}
    return _series("otelcol_exporter_queue_size", f"{size}x30", **labels) | _series(
        "otelcol_exporter_queue_capacity", "100x30", **labels
    )


def _counting(metric: str, step: int, /, **labels: str) -> Series:
    return _series(metric, f"0+{step}x120", **labels)


def _reloads(applied: int) -> Series:
    """Each minute an egress proxy gets two lists of callers, and applies `applied`. It applies every list of hosts."""
    return (
        _counting("envoy_listener_manager_lds_update_attempt", 2, **EGRESS)
        | _counting("envoy_listener_manager_lds_update_success", applied, **EGRESS)
        | _counting("envoy_cluster_manager_cds_update_attempt", 2, **EGRESS)
        | _counting("envoy_cluster_manager_cds_update_success", 2, **EGRESS)
    )


def _redundancy(deployed: int, ready: int, replicas: int) -> Series:
    return (
        _series("kube_deployment_spec_replicas", "2x60", **DEPLOYMENT)
        | _series("kube_deployment_status_replicas_available", f"{deployed}x60", **DEPLOYMENT)
        | _series("kube_statefulset_replicas", f"{replicas}x60", **STATEFUL_SET)
        | _series("kube_statefulset_status_replicas_ready", f"{ready}x60", **STATEFUL_SET)
    )


def _node(condition: str, status: str) -> Series:
    return _joined(
        *(
            _series("kube_node_status_condition", f"{each == status:d}x60", **NODE, condition=condition, status=each)
            for each in ("true", "false", "unknown")
        )
    )


def _postgresql(metric: str, values: str, **labels: str) -> Series:
    return _series(metric, values, **INSTANCE, **labels)


def _archived(failed: int) -> Series:
    archiver = "cnpg_pg_stat_archiver_last"
    return _postgresql(f"{archiver}_archived_time", "1000x60") | _postgresql(f"{archiver}_failed_time", f"{failed}x60")


def _backed_up(at: str, failed: int = 0) -> Series:
    backup = "barman_cloud_cloudnative_pg_io_last"
    return (
        _postgresql(f"{backup}_available_backup_timestamp", at)
        | _postgresql(f"{backup}_failed_backup_timestamp", f"{failed}x3100")
        | _archived(-1)
    )


def _connections(count: int) -> Series:
    return (
        _postgresql("cnpg_backends_total", f"{count}x60", datname="identity", usename="identity", state="active")
        | _postgresql("cnpg_backends_total", "1x60", datname="identity", usename="identity", state="idle")
        | _postgresql("cnpg_pg_settings_setting", "200x60", name="max_connections")
    )


def _valkey(metric: str, values: str, host: str = "redis-node-0", **labels: str) -> Series:
    return _series(metric, values, job="valkey", instance=f"{host}:6379", **labels)


def _of_valkey(severity: str = "warning", host: str = "redis-node-0") -> list[Labels]:
    return _platform(severity, job="valkey", instance=f"{host}:6379")


def _primary(replicas: int) -> Series:
    """Three servers: the cache's primary with `replicas` replicas, a replica of it, and `events` without replicas."""
    return (
        _valkey("redis_connected_slaves", f"{replicas}x30")
        | _valkey("redis_instance_info", "1x30", role="master")
        | _valkey("redis_connected_slaves", "0x30", "redis-node-1")
        | _valkey("redis_instance_info", "1x30", "redis-node-1", role="slave")
        | _valkey("redis_connected_slaves", "0x30", "events")
        | _valkey("redis_instance_info", "1x30", "events", role="master")
    )


def _memory(used: int) -> Series:
    """Memory of two stores: `events` uses `used` percent. The cache is full, which is normal for a cache."""
    return _joined(
        *(
            _valkey(f"redis_memory_{kind}_bytes", f"{value}x60", host)
            for host, filled in (("events", used), ("redis-node-0", 100))
            for kind, value in (("used", filled), ("max", 100))
        )
    )


def _consul(metric: str, *values: str, **labels: str) -> Series:
    return _joined(
        *(
            _series(metric, value, job="consul", namespace="voice-data", pod=f"consul-{index}", **labels)
            for index, value in enumerate(values)
        )
    )


def _of_consul(severity: str = "warning") -> list[Labels]:
    return _platform(severity, job="consul")


def _index(color: str) -> Series:
    return _joined(
        *(
            _series("elasticsearch_cluster_health_status", f"{each == color:d}x60", **INDEX, color=each)
            for each in ("green", "yellow", "red")
        )
    )


def _heap(used: int) -> Series:
    labels = {"job": "elasticsearch-exporter", "name": "elasticsearch-0", "area": "heap"}
    return _series("elasticsearch_jvm_memory_used_bytes", f"{used}x60", **labels) | _series(
        "elasticsearch_jvm_memory_max_bytes", "100x60", **labels
    )


def _platform(severity: str = "warning", **labels: str) -> list[Labels]:
    return [{**labels, "severity": severity, "team": "platform"}]


RESTARTS = {"namespace": "voice-apps", "pod": "rag-engine-x", "container": "rag-engine"}
SHIPPER = {"namespace": "voice-node-agents", "pod": "fluent-bit-x"}
AUTOSCALER = {"namespace": "voice-apps", "horizontalpodautoscaler": "rag-engine"}
VOLUME = {"namespace": "voice-data", "persistentvolumeclaim": "data-events-0"}
CERTIFIED = [
    {"instance": "gateway:443"},
    {"instance": "elasticsearch-0.elasticsearch-nodes:9300"},
    {"instance": "https://voice.example.com/v1/conversations"},
    {"instance": "redis.example.com:6380"},
]
LETTERS = {"job": "indexing-service", "stream": "document.uploaded"}
CALL = {"name": "redis.access"}
POD = {"namespace": "voice-apps", "pod": "rag-engine-x"}
DEPLOYMENT = {"namespace": "voice-apps", "deployment": "rag-engine"}
STATEFUL_SET = {"namespace": "voice-data", "statefulset": "consul"}
NODE = {"node": "node-1"}
INSTANCE = {"job": "postgresql", "namespace": "voice-data", "pod": "postgresql-1"}
POOLER = {"job": "postgresql-pooler", "namespace": "voice-data", "pod": "postgresql-pooler-1", "database": "identity"}
JOB = {"namespace": "voice-data", "job_name": "postgresql-dump-1"}
CRON_JOB = {"namespace": "voice-data", "cronjob": "postgresql-dump"}
SUSPENDED = {"namespace": "voice-data", "cronjob": "postgresql-restore"}
SAGA = {"job": "indexing-service", "saga": "document-deletion"}
OF_OPERATIONS = [_labels(job, operation=operation) for job, operation in _operations()]
OF_ROUTES = [_labels(job, route=route) for route, job, _ in _routes()]
OF_MEASURED_ROUTES = [labels for labels in OF_ROUTES if labels["route"] not in _sessions()]
OF_STREAMED_ROUTES = [labels for labels in OF_ROUTES if labels["route"] == "conversation-service-send"]
DESTINATION = {"cluster_name": "outbound|9000||rag-engine-grpc.voice-apps.svc.cluster.local"}
INDEX = {"job": "elasticsearch-exporter", "cluster": "elasticsearch"}
PATH_PROBES = {"cluster-dns", "public-name", "public-entrance"}
PROBED_HOSTS = ["cluster-dns", "public-name", "public-entrance", "certificates"]
PROBED = ["redis", "redis-node", "redis-sentinel", "events", "elasticsearch", "kibana", *PROBED_HOSTS]
EVERYWHERE = [_labels(job) for job in _scrape_jobs()]
SPEECH = {"job": "voice-engine", "name": "speech.synthesize"}
FLOWS = {
    "voice-dialogue": "voice-engine",
    "chat": "conversation-service",
    "login": "identity-service",
    "conversation-list": "conversation-service",
    "search": "knowledge-service",
}
OF_FLOWS = [_labels(job, flow=flow) for flow, job in FLOWS.items()]
EXTERNAL = [
    node.name
    for node in platform("prod").graph.nodes.values()
    if isinstance(node, Dependency) and any(isinstance(address, Host) for address in node.addresses)
]
OF_EXTERNAL = [{"dependency": name, "team": "platform", "severity": "warning"} for name in EXTERNAL]
LOST = {"job": "otel-collector", "exporter": "otlp_grpc/jaeger"}
NOTIFIER = {
    "job": "alertmanager",
    "namespace": "voice-observability",
    "pod": "alertmanager-0",
    "integration": "webhook",
}
RULES = {"job": "prometheus", "pod": "prometheus-0", "rule_group": "rates"}
EGRESS = {"job": "egress-proxy-a", "pod": "egress-proxy-a-x"}

ADAPTER, GENERATE = "model-adapter", {"route": "llm.generate"}
CANDIDATE = {"candidate": "openai-generate"}
MODEL = {"gen_ai_provider_name": "openai", "gen_ai_request_model": "gpt-4o-mini"}
BUDGET = {"budget": "tenant-minute"}


def _adapter(metric: str, values: str, **labels: str) -> Series:
    return _series(metric, values, job=ADAPTER, **labels)


def _chunks(part: str, objective: str, within: int) -> Series:
    """A hundred measurements a minute; `within` of them meet the objective, and none exceeds 1.28 s."""
    histogram = f"gen_ai_client_operation_{part}_seconds_bucket"
    return _joined(
        *(
            _adapter(histogram, f"0+{count}x60", **MODEL, le=le)
            for le, count in ((objective, within), ("1.28", 100), ("+Inf", 100))
        )
    )


def _model_calls(**of_a_thousand: int) -> Series:
    """A thousand successful calls a minute of one route. Each keyword adds a counter and its increase a minute.

    `cut` counts calls of the kind `cut`. Any other keyword `NAME` adds the counter `voice_model_NAME_total`.
    """
    calls = _adapter("voice_model_calls_total", "0+1000x60", **GENERATE, kind="successful")
    for name, count in of_a_thousand.items():
        if name == "cut":
            calls |= _adapter("voice_model_calls_total", f"0+{count}x60", **GENERATE, kind="cut")
        else:
            calls |= _adapter(f"voice_model_{name}_total", f"0+{count}x60", **GENERATE)
    return calls


def _cooldown(reason: str) -> Series:
    return _adapter("voice_model_cooldown", "1x60", **CANDIDATE, reason=reason)


def _tokens(estimated: int, reported: int = 100) -> Series:
    return _joined(
        *(
            _adapter("voice_model_tokens_total", f"0+{count}x60", **CANDIDATE, **GENERATE, source=source)
            for source, count in (("estimated", estimated), ("reported", reported))
        )
    )


def _retires(days: int) -> Series:
    return _adapter("voice_model_retirement_timestamp_seconds", f"{days * DAY}x120", **CANDIDATE)


MODEL_CASES: dict[tuple[str, str | None], Case] = {
    ("ModelFirstTokenLate", None): Case(
        _chunks("time_to_first_chunk", "0.25", 20),
        _chunks("time_to_first_chunk", "0.25", 96),
        "30m",
        [_labels(ADAPTER, **MODEL)],
    ),
    ("ModelTokensSlow", None): Case(
        _chunks("time_per_output_chunk", "0.0043", 20),
        _chunks("time_per_output_chunk", "0.0043", 96),
        "30m",
        [_labels(ADAPTER, **MODEL)],
    ),
    ("ModelGoodputLow", None): Case(
        _model_calls(good_calls=890), _model_calls(good_calls=910), "50m", [_labels(ADAPTER, **GENERATE)]
    ),
    ("ModelFallingBack", None): Case(
        _model_calls(fallbacks=110), _model_calls(fallbacks=90), "30m", [_labels(ADAPTER, **GENERATE)]
    ),
    ("ModelStreamsCut", None): Case(_model_calls(cut=12), _model_calls(cut=8), "50m", [_labels(ADAPTER, **GENERATE)]),
    ("ModelResting", None): Case(
        _cooldown("rate_limited"),
        _cooldown("quota_exhausted"),
        "30m",
        [_labels(ADAPTER, **CANDIDATE, reason="rate_limited")],
    ),
    ("ModelCredentialRefused", None): Case(
        _cooldown("authentication"),
        _cooldown("rate_limited"),
        "30m",
        [_labels(ADAPTER, **CANDIDATE, reason="authentication")],
    ),
    ("ModelUsageEstimated", None): Case(_tokens(30), _tokens(20), "50m", [_labels(ADAPTER, **CANDIDATE)]),
    ("ModelQuotaBurning", None): Case(
        _tokens(0, 17_000_000), _tokens(0, 15_000_000), "30m", [_labels(ADAPTER, **CANDIDATE)]
    ),
    ("ModelBudgetRefusing", None): Case(
        _adapter("voice_model_budget_requests_total", "0+1x60", **BUDGET, kind="rejected"),
        _adapter("voice_model_budget_requests_total", "0+1x60", **BUDGET, kind="admitted"),
        "30m",
        [_labels(ADAPTER, **BUDGET)],
    ),
    ("ModelBudgetAlone", None): Case(
        _adapter("voice_model_budget_without_store_total", "0+1x60", **BUDGET),
        _adapter("voice_model_budget_without_store_total", "1x60", **BUDGET),
        "30m",
        [_labels(ADAPTER, **BUDGET)],
    ),
    ("ModelUsageLost", None): Case(
        _adapter("voice_model_usage_events_dropped_total", "0+1x60"),
        _adapter("voice_model_usage_events_dropped_total", "1x60"),
        "30m",
        [_labels(ADAPTER)],
    ),
    ("ModelRetires", None): Case(_retires(29), _retires(31), "90m", [_labels(ADAPTER, **CANDIDATE)]),
}

CASES: dict[tuple[str, str | None], Case] = {
    ("TargetDown", None): Case(
        _up(0), _up(1) | _series("up", "0x30", job="redis", instance="b", probe="valkey"), "10m", EVERYWHERE
    ),
    ("ProbeFailing", None): Case(_probes(0), _probes(1), "5m", [_labels(job) for job in PROBED]),
    ("TargetMissing", None): Case(_series("other", "1x30"), _up(0), "15m", EVERYWHERE),
    ("OperationFailing", None): Case(_requests(200), _requests(5), "90m", OF_OPERATIONS),
    ("OperationSlow", None): Case(_slow(80), _slow(4), "50m", OF_OPERATIONS),
    ("OperationUncounted", None): Case(_up(1), _up(1) | _requests(0), "20m", OF_OPERATIONS),
    ("ServerUnavailable", None): Case(_series("other", "1x60"), _servers(failed=3, after=20), "30m", EVERYWHERE),
    ("FlowFailing", None): Case(_flows(0.2), _flows(0.0004), "50m", OF_FLOWS),
    ("FirstMessageLate", None): Case(_first_messages(80), _first_messages(4), "50m", [_labels(**SPEECH)]),
    ("DependencyFailing", None): Case(_attempts(2_000), _attempts(9), "50m", OF_EXTERNAL),
    ("RouteFailing", None): Case(_statuses("502", 0.2), _statuses("502", 0.0004), "50m", OF_ROUTES),
    ("RouteSlow", None): Case(
        _latencies(20, type="upstream"), _latencies(96, type="upstream"), "50m", OF_MEASURED_ROUTES
    ),
    ("RouteFirstByteLate", None): Case(
        _latencies(20, "first_byte_latency"), _latencies(96, "first_byte_latency"), "50m", OF_STREAMED_ROUTES
    ),
    ("RouteTimingOut", None): Case(_statuses("504", 0.4), _statuses("504", 0.01), "50m", OF_ROUTES),
    ("RouteLimiting", None): Case(_statuses("429", 0.2), _statuses("429", 0.004), "50m", OF_ROUTES),
    ("GatewayUncounted", None): Case(_series("other", "1x30"), _statuses("502", 0), "20m", [_labels("gateway")]),
    ("ServiceSaturated", None): Case(_load(0.95), _load(0.8), "30m", [_labels(job) for job in _jobs()]),
    ("BulkheadSaturated", None): Case(_slots(10), _slots(9), "20m", [_labels(job) for job in _jobs()]),
    ("BreakerOpen", None): Case(_breakers("open"), _breakers("half_open"), "20m", _of_jobs(**CALL)),
    ("BreakerHalfOpen", None): Case(
        _breakers("half_open") | _counted("voice_call_attempts_total", 1, **CALL, kind="successful"),
        _breakers("half_open") | _counted("voice_call_attempts_total", 0, **CALL, kind="successful"),
        "20m",
        _of_jobs(**CALL),
    ),
    ("RetryBudgetSpent", None): Case(
        _counted("voice_call_exhausted_total", 1, **CALL, reason="budget"),
        _counted("voice_call_exhausted_total", 1, **CALL, reason="deadline"),
        "30m",
        _of_jobs(**CALL),
    ),
    ("CallsRejected", None): Case(
        _counted("voice_bulkhead_rejected_calls_total", 1, **CALL, direction="outbound"),
        _counted("voice_bulkhead_rejected_calls_total", 0, **CALL, direction="outbound"),
        "30m",
        _of_jobs(**CALL, direction="outbound"),
    ),
    ("ServiceDegraded", None): Case(
        _valued("voice_degradation_level", 1, level="partial"),
        _valued("voice_degradation_level", 1, level="normal"),
        "30m",
        _of_jobs(level="partial"),
    ),
    ("FallbackMissing", None): Case(
        _valued("voice_call_fallback_missing", 1, **CALL),
        _valued("voice_call_fallback_missing", 0, **CALL),
        "30m",
        _of_jobs(**CALL),
    ),
    ("BundleRefused", None): Case(
        _counted("voice_policy_reloads_total", 1, result="refused"),
        _counted("voice_policy_reloads_total", 1, result="applied"),
        "30m",
        _of_jobs(),
    ),
    ("BundlesDiffer", None): Case(_bundles("one", "other"), _bundles("one", "one"), "50m", _of_jobs()),
    ("BundleNotMounted", None): Case(_mounted("one"), _declared("voice_policy_mounted_info"), "30m", _of_jobs()),
    ("BundleNotEnforced", None): Case(_bundles("one"), _declared("voice_policy_info"), "30m", _of_jobs()),
    ("AttemptsAboveBound", None): Case(
        _called(25_000), _called(20_000), "60m", [_labels("model-router", operation="choose")]
    ),
    ("MeshBreakerOpen", None): Case(
        _proxies("envoy_cluster_outlier_detection_ejections_active", "1x60"),
        _proxies("envoy_cluster_outlier_detection_ejections_active", "0x60"),
        "10m",
        _of_jobs(**DESTINATION),
    ),
    ("MeshCallsRejected", None): Case(
        _proxies("envoy_cluster_upstream_rq_pending_overflow", "0+1x60"),
        _proxies("envoy_cluster_upstream_cx_overflow", "1x60"),
        "30m",
        _of_jobs(**DESTINATION),
    ),
    **MODEL_CASES,
    ("SagaParked", None): Case(_sagas(2), _sagas(0), "10m", [_labels(**SAGA)]),
    ("DeadLetters", None): Case(_dead_letters("0x10 2x50"), _dead_letters("2x60"), "30m", [_labels(**LETTERS)]),
    **{
        (f"{name}ForDays", "warning"): Case(
            _for_days(firing), _for_days(silent), "7h1m", [_as_warning(each) for each in expected]
        )
        for name, firing, silent, expected in (
            ("OperationFailing", _requests(50), _requests(0), OF_OPERATIONS),
            ("OperationSlow", _slow(8), _slow(4), OF_OPERATIONS),
            ("ServerUnavailable", _series("other", "1x60"), _servers(failed=1, after=60), EVERYWHERE),
            ("FlowFailing", _flows(0.02), _flows(0.0004), OF_FLOWS),
            ("FirstMessageLate", _first_messages(20), _first_messages(4), [_labels(**SPEECH)]),
            ("DependencyFailing", _attempts(200), _attempts(9), OF_EXTERNAL),
            ("RouteFailing", _statuses("502", 0.05), _statuses("502", 0.0004), OF_ROUTES),
            ("RouteSlow", _latencies(80, type="upstream"), _latencies(96, type="upstream"), OF_MEASURED_ROUTES),
            (
                "RouteFirstByteLate",
                _latencies(80, "first_byte_latency"),
                _latencies(96, "first_byte_latency"),
                OF_STREAMED_ROUTES,
            ),
            ("RouteTimingOut", _statuses("504", 0.03), _statuses("504", 0.01), OF_ROUTES),
            ("RouteLimiting", _statuses("429", 0.01), _statuses("429", 0.004), OF_ROUTES),
        )
    },
    ("Watchdog", "warning"): Case({}, None, "1m", [{"team": "watchdog", "severity": "warning"}]),
    ("ContainerRestarts", "warning"): Case(
        _series("kube_pod_container_status_restarts_total", "0x30 1+1x5 6x60", **RESTARTS),
        _series("kube_pod_container_status_restarts_total", "0x30 1x60", **RESTARTS),
        "45m",
        _platform(**RESTARTS),
    ),
    ("PodPending", "warning"): Case(
        _series("kube_pod_status_phase", "1x60", **POD, phase="Pending"),
        _series("kube_pod_status_phase", "0x60", **POD, phase="Pending")
        | _series("kube_pod_status_phase", "1x60", **POD, phase="Running"),
        "30m",
        _platform(**POD),
    ),
    ("ReplicasMissing", "warning"): Case(_ready(1), _ready(2), "30m", _platform(**DEPLOYMENT)),
    ("RedundancyLost", "critical"): Case(
        _redundancy(1, 2, 3),
        _redundancy(2, 3, 3),
        "20m",
        [*_platform("critical", **DEPLOYMENT), *_platform("critical", **STATEFUL_SET)],
    ),
    ("NodeNotReady", "warning"): Case(_node("Ready", "unknown"), _node("Ready", "true"), "10m", _platform(**NODE)),
    ("NodeUnderPressure", "warning"): Case(
        _node("DiskPressure", "true"),
        _node("DiskPressure", "false"),
        "10m",
        _platform(**NODE, condition="DiskPressure"),
    ),
    ("AutoscalerBlocked", "warning"): Case(
        _scaling("false"), _scaling("true"), "30m", _platform(**AUTOSCALER, condition="ScalingActive")
    ),
    ("JobFailing", "warning"): Case(
        _series("kube_job_status_failed", "1x60", **JOB),
        _series("kube_job_status_failed", "1x60", **JOB) | _series("kube_job_status_succeeded", "1x60", **JOB),
        "30m",
        _platform(**JOB),
    ),
    ("ScheduledJobOverdue", "warning"): Case(
        _series("kube_cronjob_created", "0x3100", **CRON_JOB),
        _series("kube_cronjob_created", "0x3100", **CRON_JOB)
        | _series("kube_cronjob_status_last_successful_time", f"{2 * DAY}x3100", **CRON_JOB)
        | _series("kube_cronjob_created", "0x3100", **SUSPENDED)
        | _series("kube_cronjob_spec_suspend", "1x3100", **SUSPENDED),
        "51h",
        _platform(**CRON_JOB),
    ),
    ("AutoscalerAtMaximum", "warning"): Case(
        _replicas(5), _replicas(5, minimum=5) | _replicas(4), "20m", _platform(**AUTOSCALER)
    ),
    ("PostgresqlDown", "critical"): Case(
        _postgresql("cnpg_collector_up", "0x30"),
        _postgresql("cnpg_collector_up", "1x30"),
        "10m",
        _platform("critical", **INSTANCE),
    ),
    ("PostgresqlWritesBlocked", "critical"): Case(
        _postgresql("cnpg_pg_replication_streaming_replicas", "0x30"),
        _postgresql("cnpg_pg_replication_streaming_replicas", "1x30"),
        "10m",
        _platform("critical", job="postgresql", namespace="voice-data"),
    ),
    ("PostgresqlReplicaBehind", "warning"): Case(
        _postgresql("cnpg_pg_replication_lag", "61x30"),
        _postgresql("cnpg_pg_replication_lag", "59x30"),
        "10m",
        _platform(**INSTANCE),
    ),
    ("PostgresqlArchiveFailing", "critical"): Case(
        _archived(1001), _archived(999), "10m", _platform("critical", job="postgresql")
    ),
    ("PostgresqlArchiveBehind", "warning"): Case(
        _postgresql("cnpg_collector_pg_wal_archive_status", "11x30", value="ready"),
        _postgresql("cnpg_collector_pg_wal_archive_status", "11x30", value="done"),
        "20m",
        _platform(**INSTANCE),
    ),
    ("PostgresqlBackupOverdue", "critical"): Case(
        _backed_up("0x3100"), _backed_up("0x1400 86400x1700"), "32h", _platform("critical", job="postgresql")
    ),
    ("PostgresqlBackupFailed", "warning"): Case(
        _backed_up("0x60", failed=1), _backed_up("2x60", failed=1), "10m", _platform(job="postgresql")
    ),
    ("PostgresqlSaturated", "warning"): Case(_connections(181), _connections(179), "10m", _platform(**INSTANCE)),
    ("PoolerSaturated", "warning"): Case(
        _series("cnpg_pgbouncer_pools_cl_waiting", "1x30", **POOLER, user="identity"),
        _series("cnpg_pgbouncer_pools_cl_waiting", "0x30", **POOLER, user="identity"),
        "10m",
        _platform(**POOLER),
    ),
    ("ValkeyDown", "critical"): Case(
        _valkey("redis_up", "0x30"), _valkey("redis_up", "1x30"), "10m", _of_valkey("critical")
    ),
    ("ValkeyReplicaUnlinked", "warning"): Case(
        _valkey("redis_master_link_up", "0x30"), _valkey("redis_master_link_up", "1x30"), "10m", _of_valkey()
    ),
    ("ValkeyPrimaryAlone", "critical"): Case(_primary(0), _primary(1), "10m", _of_valkey("critical")),
    ("ValkeyAppendFailing", "critical"): Case(
        _valkey("redis_aof_last_write_status", "0x30", "events"),
        _valkey("redis_aof_last_write_status", "1x30", "events")
        | _valkey("redis_aof_last_bgrewrite_status", "1x30", "events"),
        "10m",
        _of_valkey("critical", "events"),
    ),
    ("ValkeyMemoryFull", "warning"): Case(_memory(81), _memory(79), "30m", _of_valkey(host="events")),
    ("ValkeyConnectionsRefused", "warning"): Case(
        _valkey("redis_rejected_connections_total", "0+1x60"),
        _valkey("redis_rejected_connections_total", "1x60"),
        "30m",
        _of_valkey(),
    ),
    ("ConsulWithoutLeader", "critical"): Case(
        _consul("consul_server_isLeader", "0x30", "0x30"),
        _consul("consul_server_isLeader", "1x30", "0x30"),
        "10m",
        _of_consul("critical"),
    ),
    ("ConsulUnhealthy", "warning"): Case(
        _consul("consul_autopilot_healthy", "0x30"), _consul("consul_autopilot_healthy", "1x30"), "10m", _of_consul()
    ),
    **{
        (name, "warning"): Case(
            _consul(metric, f"{limit + 1}x30", quantile="0.99"),
            _consul(metric, f"{limit}x30", quantile="0.99") | _consul(metric, f"{limit + 1}x30", quantile="0.9"),
            "20m",
            _of_consul(),
        )
        for name, metric, limit in (
            ("ConsulRaftContactLate", "consul_raft_leader_lastContact", 200),
            ("ConsulCommitsSlow", "consul_raft_commitTime", 500),
        )
    },
    ("ElasticsearchRed", "critical"): Case(
        _index("red"), _index("yellow"), "10m", _platform("critical", **INDEX, color="red")
    ),
    ("ElasticsearchYellow", "warning"): Case(
        _index("yellow"), _index("green"), "50m", _platform(**INDEX, color="yellow")
    ),
    ("ElasticsearchHeapFull", "warning"): Case(
        _heap(91),
        _heap(89),
        "30m",
        _platform(job="elasticsearch-exporter", name="elasticsearch-0", area="heap"),
    ),
    ("VolumeFilling", "warning"): Case(_volume("490-0.1x600"), _volume("490-0.01x600"), "9h", _platform(**VOLUME)),
    ("VolumeFull", "critical"): Case(_volume("90x600"), _volume("110x600"), "10m", _platform("critical", **VOLUME)),
    ("CertificateExpires", "warning"): Case(
        _certificate(20), _certificate(22), "90m", [each for labels in CERTIFIED for each in _platform(**labels)]
    ),
    ("CertificateExpires", "critical"): Case(
        _certificate(2),
        _certificate(4),
        "10m",
        [each for labels in CERTIFIED for each in _platform("critical", **labels)],
    ),
    ("CollectorQueueFilling", "warning"): Case(
        _queue(60), _queue(40), "10m", _platform(**LOST, pod="otel-collector-0")
    ),
    ("TelemetryLost", "critical"): Case(
        _counting("otelcol_exporter_enqueue_failed_spans", 5, **LOST),
        _counting("otelcol_exporter_enqueue_failed_spans", 0, **LOST),
        "20m",
        _platform("critical", **LOST),
    ),
    ("RulesFailing", "critical"): Case(
        _counting("prometheus_rule_evaluation_failures_total", 1, **RULES),
        _counting("prometheus_rule_evaluation_failures_total", 0, **RULES),
        "20m",
        _platform("critical", **RULES),
    ),
    ("ConfigurationRefused", "warning"): Case(
        _series("prometheus_config_last_reload_successful", "0x30", job="prometheus", pod="prometheus-0"),
        _series("prometheus_config_last_reload_successful", "1x30", job="prometheus", pod="prometheus-0"),
        "10m",
        _platform(job="prometheus", pod="prometheus-0"),
    ),
    ("AllowListRefused", "warning"): Case(_reloads(1), _reloads(2), "20m", _platform(**EGRESS)),
    ("LogLinesLost", "warning"): Case(
        _counting("fluentbit_output_dropped_records_total", 1, **SHIPPER),
        _counting("fluentbit_output_dropped_records_total", 0, **SHIPPER),
        "20m",
        _platform(**SHIPPER),
    ),
    ("NotificationsFailing", "critical"): Case(
        _counting("alertmanager_notifications_failed_total", 1, **NOTIFIER),
        _counting("alertmanager_notifications_failed_total", 0, **NOTIFIER),
        "20m",
        _platform("critical", **NOTIFIER),
    ),
}
"""Name and severity of an alert → its case. The severity is `None` if it depends on the labels of the series."""
