from __future__ import annotations

import json
import re
from math import ceil
from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import Bytes, Duration, InvalidInputError, Rate, Ratio

from components.component import Component
from components.edge.gateway import ApisixGateway
from components.mesh import proxy
from components.node import Gateway
from components.observability.alertmanager import Alertmanager, AlertRoute
from components.observability.blackbox_exporter import BlackboxExporter
from components.observability.collector import FRAGMENTATION, Collector
from components.observability.prometheus import Prometheus
from components.observability.rules import Alert
from components.observability.scrape_jobs import KUBELET, KUBELET_METRICS
from components.operation import hard, operation, soft, stage
from components.writes import FILL_LIMIT
from stack.model.environments import environment as environment_of
from stack.model.load import executions
from stack.model.platform import Platform
from stack.model.settings import PROJECT, ROOT, parse_settings
from stack.output.runbook import FOLDER
from stack.voiceassistant import TENANT, alerts, telemetry
from stack.voiceassistant.catalog import SERVICES, TEAM_SERVICES
from stack.voiceassistant.platform_alerts import PLATFORM_ALERTS
from stack.voiceassistant.tiers.observability import probed_hosts
from tests.platforms import ENVIRONMENTS, of_kind, platform, real_environment, resources
from tests.small import datastore, service, small_platform
from tests.stack.deploy.program_run import configured
from tests.stack.voiceassistant.exported_metrics import exported

INFRASTRUCTURE = {
    "gateway": ("voice-gateway", "/apisix/prometheus/metrics"),
    "egress-proxy-a": ("voice-egress", "/stats/prometheus"),
    "egress-proxy-b": ("voice-egress", "/stats/prometheus"),
    "otel-collector": ("voice-observability", "/metrics"),
    "prometheus": ("voice-observability", "/metrics"),
    "alertmanager": ("voice-observability", "/metrics"),
    "kube-state-metrics": ("voice-observability", "/metrics"),
    "blackbox-exporter": ("voice-observability", "/metrics"),
    "jaeger": ("voice-observability", "/metrics"),
    "tempo": ("voice-observability", "/metrics"),
    "grafana": ("voice-observability", "/metrics"),
    "consul": ("voice-data", "/v1/agent/metrics"),
}
REPLICATED = {
    "postgresql": ("voice-data", "/metrics"),
    "postgresql-pooler": ("voice-data", "/metrics"),
    "fluent-bit": ("voice-node-agents", "/api/v2/metrics/prometheus"),
    "valkey-exporter": ("voice-observability", "/metrics"),
    "elasticsearch-exporter": ("voice-observability", "/metrics"),
}
"""Jobs outside dev. dev's stores are single servers without exporters, and dev has no log shipper."""
PROBED = {
    "redis": ("voice-data", "valkey", ""),
    "events": ("voice-data", "valkey", ""),
    "elasticsearch": ("voice-data", "http", ""),
}
PROBED_IN_DEV = {"postgresql-pooler": ("voice-data", "tcp", "")}
PROBED_IF_REPLICATED = {
    "redis-node": ("voice-data", "valkey", ""),
    "redis-sentinel": ("voice-data", "sentinel", ""),
    "kibana": ("voice-observability", "http", "/api/status"),
}
"""Server without metrics → its namespace, its probe module, and its HTTP path."""


def prometheus(environment: str) -> Prometheus:
    (found,) = (each for each in platform(environment).components if isinstance(each, Prometheus))
    return found


def collector(environment: str) -> Collector:
    (found,) = (each for each in platform(environment).components if isinstance(each, Collector))
    return found


def alertmanager(environment: str) -> Alertmanager:
    (found,) = (each for each in platform(environment).components if isinstance(each, Alertmanager))
    return found


def document(component: Component, file: str) -> dict[str, Any]:
    files: dict[str, str] = component.files  # type: ignore[attr-defined]  # every component of this tier has files
    found: dict[str, Any] = json.loads(files[file])
    return found


@pytest.mark.parametrize(
    ("addresses", "probed"),
    [(("172.20.0.10/32", "fd00::a/128"), "172.20.0.10:53"), (("fd00::a/128",), "[fd00::a]:53")],
)
def test_the_prober_queries_the_dns_at_the_address_in_the_settings(addresses: tuple[str, ...], probed: str) -> None:
    real = real_environment("prod")
    settings = real.settings.model_copy(update={"cluster_dns": addresses})
    changed = real.model_copy(update={"settings": settings})
    hosts = {each.name: each.hosts for each in probed_hosts(TENANT.graph, changed)}
    assert hosts["cluster-dns"] == hosts["public-name"] == (probed,)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_and_every_component_with_metrics_has_a_job(environment: str) -> None:
    jobs = {job["job_name"]: job for job in document(prometheus(environment), "prometheus.json")["scrape_configs"]}
    services = {each.name: ("voice-apps", "/metrics") for each in SERVICES}
    declared = services | INFRASTRUCTURE | ({} if environment == "dev" else REPLICATED)
    probed = PROBED | (PROBED_IN_DEV if environment == "dev" else PROBED_IF_REPLICATED)
    meshed = set() if environment == "dev" else {"mesh-proxy", "valkey", "public-name", "public-entrance"}
    assert jobs.keys() == {*declared, *probed, *meshed, "kubelet", "certificates", "cluster-dns"}
    for name, (namespace, path) in declared.items():
        assert jobs[name]["metrics_path"] == path
        assert jobs[name]["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": [namespace]}}]
    for name, (namespace, module, path) in probed.items():
        assert (jobs[name]["metrics_path"], jobs[name]["params"]) == ("/probe", {"module": [module]})
        assert jobs[name]["kubernetes_sd_configs"] == [{"role": "pod", "namespaces": {"names": [namespace]}}]
        address, instance, probe, prober = jobs[name]["relabel_configs"][-4:]
        assert (address["target_label"], address["replacement"]) == ("__param_target", f"$1{path}")
        assert address["source_labels"] == instance["source_labels"] == ["__address__"]
        assert (probe["target_label"], probe["replacement"]) == ("probe", module)
        assert prober == {
            "target_label": "__address__",
            "replacement": "blackbox-exporter.voice-observability.svc.cluster.local:9115",
        }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_kube_state_metrics_keeps_the_labels_that_it_exports(environment: str) -> None:
    jobs = document(prometheus(environment), "prometheus.json")["scrape_configs"]
    assert {job["job_name"] for job in jobs if job.get("honor_labels")} == {"kube-state-metrics"}


def test_prometheus_keeps_exactly_the_declared_metrics_of_a_kubelet() -> None:
    jobs = {job["job_name"]: job for job in document(prometheus("prod"), "prometheus.json")["scrape_configs"]}
    (kept,) = jobs[KUBELET]["metric_relabel_configs"]
    assert (kept["source_labels"], kept["action"]) == (["__name__"], "keep")
    exposed = {*KUBELET_METRICS, "kubelet_volume_stats_inodes", "kubelet_volume_stats_available_bytes_total"}
    assert {name for name in exposed if re.fullmatch(kept["regex"], name)} == set(KUBELET_METRICS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_job_finds_pods_that_declare_its_port_and_every_workload_has_a_job(environment: str) -> None:
    """Pods of operators are the exception, because the platform does not render them."""
    asked = {target.name: target for target in prometheus(environment).targets}
    found = set()
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for workload in of_kind(environment, kind):
            template = workload["spec"]["template"]
            ports = {port["containerPort"] for each in template["spec"]["containers"] for port in each.get("ports", [])}
            finding = {
                name
                for name, target in asked.items()
                if (target.namespace, target.name)
                == (workload["metadata"]["namespace"], template["metadata"]["labels"].get(target.label))
                and target.scrape.port in ports
            }
            assert finding, workload["metadata"]["name"]
            found |= finding
    operated = set() if environment == "dev" else {"postgresql", "postgresql-pooler"}
    assert asked.keys() - found == operated


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_roles_permit_only_to_read_nodes_and_to_read_pods_and_workloads_in_our_namespaces(environment: str) -> None:
    rules = [
        rule
        for role in of_kind(environment, "Role")
        if role["metadata"]["name"] in {"prometheus", "kube-state-metrics"}
        for rule in role["rules"]
    ]
    assert {(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]} == {
        ("", "pods"),
        ("apps", "deployments"),
        ("apps", "statefulsets"),
        ("autoscaling", "horizontalpodautoscalers"),
        ("batch", "cronjobs"),
        ("batch", "jobs"),
    }
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert [role["rules"] for role in of_kind(environment, "ClusterRole")] == [
        [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}],
    ]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_prober_requests_the_certificate_with_the_gateways_server_name(environment: str) -> None:
    (entrance,) = (each for each in platform(environment).components if isinstance(each, ApisixGateway))
    (certificate,) = json.loads(entrance.files["apisix.yaml"].removesuffix("#END\n"))["ssls"]
    (prober,) = (each for each in platform(environment).components if isinstance(each, BlackboxExporter))
    modules = document(prober, "blackbox.json")["modules"]
    (job,) = (
        each
        for each in document(prometheus(environment), "prometheus.json")["scrape_configs"]
        if each["job_name"] == "certificates"
    )
    (module,) = job["params"]["module"]
    assert [modules[module]["tcp"]["tls_config"]["server_name"]] == certificate["snis"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_certificate_of_a_secret_is_probed_at_each_server_that_presents_it(environment: str) -> None:
    addresses = {"gateway": ["gateway.voice-gateway.svc.cluster.local:443"]}
    for nodes in of_kind(environment, "StatefulSet"):
        if nodes["metadata"]["name"] == "elasticsearch" and nodes["spec"]["replicas"] > 1:
            pods = f"{nodes['spec']['serviceName']}.voice-data.svc.cluster.local:9300"
            addresses["elasticsearch"] = [f"elasticsearch-{each}.{pods}" for each in range(nodes["spec"]["replicas"])]
    found = platform(environment)
    presenting = {
        component.name
        for component in found.components
        for secret in component.secrets
        if any(form.kind == "certificate" for form in secret.forms.values())
    }
    assert addresses.keys() == presenting
    (job,) = (each for each in prometheus(environment).probed_hosts if each.name == "certificates")
    assert sorted(job.hosts) == sorted(address for each in addresses.values() for address in each)
    probed = [link.target for link in found.links if link.source.name == "blackbox-exporter"]
    pod_ports = {"gateway": 9443, "elasticsearch": 9300}
    for name in addresses:
        assert any(target.name == name and pod_ports[name] in target.ports for target in probed), name


def expressions(environment: str) -> str:
    rules = [rule for group in prometheus(environment).groups for rule in group.rules]
    return "\n".join(rule.expression for rule in rules)


EXPORTED = {
    *proxy.STATISTICS.values(),
    # Names from the sources of other programs: apisix/plugins/prometheus/exporter.lua, blackbox_exporter's
    # prober/tcp.go, the Collector's exporterhelper, Prometheus' rules/manager.go and cmd/prometheus, Alertmanager's
    # notify.
    "apisix_http_latency_count",
    # A function of the gateway adds the next metric, see `components/edge/apisix.py`.
    "apisix_http_first_byte_latency_count",
    "probe_ssl_earliest_cert_expiry",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_config_last_reload_successful",
    "alertmanager_notifications_failed_total",
    # CloudNativePG and its plugin: see `store_alerts.py`.
    "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp",
    "cnpg_collector_up",
    "cnpg_pg_stat_archiver_last_archived_time",
    "cnpg_pg_stat_archiver_last_failed_time",
    # The exporters of Valkey and of Elasticsearch: see `store_alerts.py`.
    "elasticsearch_cluster_health_status",
    "elasticsearch_jvm_memory_max_bytes",
    "elasticsearch_jvm_memory_used_bytes",
    "redis_aof_last_bgrewrite_status",
    "redis_aof_last_write_status",
    "redis_connected_slaves",
    "redis_instance_info",
    "redis_master_link_up",
    "redis_memory_max_bytes",
    "redis_memory_used_bytes",
    "redis_rejected_connections_total",
    "redis_up",
}
"""The metrics that only alerts use. `exported_metrics.py` has the metrics of dashboards."""
WORDS = {
    *(
        "sum",
        "by",
        "on",
        "and",
        "unless",
        "rate",
        "count",
        "max",
        "min",
        "vector",
        "increase",
        "time",
        "or",
        "sum_over_time",
    ),
    *(
        "count_over_time",
        "histogram_quantile",
        "label_replace",
        "predict_linear",
        "group_left",
        "__name__",
        "otelcol_exporter_",
    ),
}


def test_no_rule_names_a_metric_that_nothing_exports() -> None:
    recorded = {rule.name for group in prometheus("prod").groups for rule in group.rules}
    text = re.sub(r'"[^"]*"|\[[0-9a-z:]+\]|(by|on|group_left) ?\([^)]*\)', " ", expressions("prod"))
    text = re.sub(r"\{[^}]*\}", " ", text)
    named = set(re.findall(r"[a-z_][a-zA-Z0-9_:]*", text)) - WORDS
    assert named - recorded - EXPORTED - exported().keys() == set()


def test_prometheus_records_the_series_that_the_runbook_names() -> None:
    named = set(re.findall(r"`(\w+:[\w:]+)`", (FOLDER / "alerts.md").read_text()))
    assert named
    assert named <= {rule.name for group in prometheus("prod").groups for rule in group.rules}


def test_every_operation_every_route_and_every_flow_has_its_objectives() -> None:
    rules = [rule for group in prometheus("prod").groups for rule in group.rules]
    recorded = {
        (rule.name, rule.labels["job"], rule.labels.get("operation")): float(rule.expression[7:-1])
        for rule in rules
        if not isinstance(rule, Alert) and rule.name.startswith("operation:") and "job" in rule.labels
    }
    for each in SERVICES:
        for found in each.operations:
            assert recorded.pop(("operation:slow:budget", each.name, found.name)) == 0.05
            assert 0 < recorded.pop(("operation:failures:budget", each.name, found.name)) < 0.01
    assert recorded == {}
    flows = {rule.labels["flow"]: rule.expression for rule in rules if rule.name == "flow:failures:budget"}  # type: ignore[union-attr]  # a recording
    assert flows == {
        "voice-dialogue": "vector(0.001)",
        "chat": "vector(0.001)",
        "login": "vector(0.0005)",
        "conversation-list": "vector(0.0005)",
        "search": "vector(0.005)",
    }
    entrance = platform("prod").graph.gateway
    assert isinstance(entrance, Gateway)
    routes = {rule.labels["route"] for rule in rules if not isinstance(rule, Alert) and "route" in rule.labels}
    assert routes == {found.name for found in entrance.operations}
    timed = {
        rule.labels["route"] for rule in rules if not isinstance(rule, Alert) and rule.name == "route:seconds:objective"
    }
    assert routes - timed == {found.name for found in entrance.operations if found.transport == "websocket"} != set()


def test_every_service_has_one_team_and_every_alert_says_what_to_do() -> None:
    assert alerts.TEAMS.keys() == {each.name for each in SERVICES}
    assert sum(len(services) for services in TEAM_SERVICES.values()) == len(SERVICES)
    assert all(alert.action for alert in (*alerts.OBJECTIVE_ALERTS, *PLATFORM_ALERTS))


def silenced(rule: dict[str, Any], source: dict[str, str], target: dict[str, str]) -> bool:
    """True if an inhibition rule keeps Alertmanager from sending `target` while `source` fires."""

    def fits(matchers: list[str], labels: dict[str, str]) -> bool:
        found = [re.fullmatch(r'(\w+)(=~|!=|=)"(.*)"', matcher) for matcher in matchers]
        return all(
            each and (re.fullmatch(each[3], labels.get(each[1], "")) is not None) == (each[2] != "!=") for each in found
        )

    alike = all(source.get(label) == target.get(label) for label in rule["equal"])
    return alike and fits(rule["source_matchers"], source) and fits(rule["target_matchers"], target)


@pytest.mark.parametrize(
    ("alert", "other", "hidden"),
    [
        ("TargetMissing", {"alertname": "OperationSlow", "severity": "warning", "job": "agent-engine"}, True),
        ("TargetMissing", {"alertname": "OperationFailing", "severity": "critical", "job": "agent-engine"}, False),
        ("TargetMissing", {"alertname": "OperationSlow", "severity": "warning", "job": "rag-engine"}, False),
        ("TargetDown", {"alertname": "OperationSlow", "severity": "warning", "job": "agent-engine"}, False),
        ("TargetDown", {"alertname": "TargetDown", "severity": "critical", "job": "agent-engine"}, False),
    ],
    ids=["warning of the job", "critical alert of the job", "warning of another job", "pod is down", "the same alert"],
)
def test_a_missing_job_silences_its_warnings_and_a_pod_that_is_down_silences_nothing(
    alert: str, other: dict[str, str], hidden: bool
) -> None:
    firing = {"alertname": alert, "severity": "critical", "job": "agent-engine", "instance": "10.0.0.1:8003"}
    rules = document(alertmanager("prod"), "alertmanager.json")["inhibit_rules"]
    assert any(silenced(rule, firing, other) for rule in rules) is hidden


def test_a_pod_of_telemetry_that_is_down_raises_only_a_warning() -> None:
    rules = [rule for group in prometheus("prod").groups for rule in group.rules if rule.name == "target:declared"]
    found = {rule.labels["job"]: rule.labels["severity"] for rule in rules if not isinstance(rule, Alert)}
    assert {found[job] for job in ("fluent-bit", "otel-collector", "grafana")} == {"warning"}
    assert {found[job] for job in ("gateway", "redis", "postgresql")} == {"critical"}


def test_the_address_of_a_receiver_is_a_secret_in_a_file() -> None:
    text = alertmanager("prod").files["alertmanager.json"]
    assert "://" not in text
    files = re.findall(r'"url_file": "([^"]+)"', text)
    mounted = {secret.path for secret in alertmanager("prod").secrets}
    assert {file.rpartition("/")[0] for file in files} == mounted
    assert len(files) == len(TEAM_SERVICES) + 3, (
        "one for each team, the platform team, the person on call and the watchdog"
    )


def test_prod_has_two_replicas_of_prometheus_with_disks_for_31_days() -> None:
    found = prometheus("prod")
    assert (found.replicas, found.retention, found.storage) == (2, Duration("31d"), Bytes("120Gi"))
    retention = document(found, "prometheus.json")["storage"]["tsdb"]["retention"]
    assert retention["time"] == "31d"
    # For Prometheus one MB is 1024² bytes.
    assert int(retention["size"].removesuffix("MB")) == 0.85 * 120 * 1024


def test_prometheus_expects_one_pod_more_than_an_autoscalers_maximum_because_of_rollouts() -> None:
    pods = {target.name: target.pods for target in prometheus("prod").targets}
    assert (pods["gateway"], pods["egress-proxy-a"], pods["egress-proxy-b"]) == (7, 5, 5)
    assert pods["fluent-bit"] == platform("prod").environment.settings.node_pool.nodes


def test_a_label_distinguishes_replicas_and_is_dropped_from_alerts() -> None:
    found = document(prometheus("prod"), "prometheus.json")
    assert found["global"]["external_labels"] == {"cluster": "voice-prod", "replica": "${POD_NAME}"}
    assert found["alerting"]["alert_relabel_configs"] == [{"regex": "replica", "action": "labeldrop"}]
    (receivers,) = found["alerting"]["alertmanagers"]
    assert len(receivers["static_configs"][0]["targets"]) == alertmanager("prod").replicas == 2


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_collector_limits_memory_first_and_redacts_last(environment: str) -> None:
    found = document(collector(environment), "collector.json")
    for pipeline in found["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "redaction"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_queues_of_the_collector_are_bounded_and_on_disk(environment: str) -> None:
    for exporter in document(collector(environment), "collector.json")["exporters"].values():
        queue = exporter["sending_queue"]
        assert queue["storage"] == "file_storage/queues"
        assert queue["sizer"] == "bytes"
        assert queue["batch"]["max_size"] <= queue["queue_size"]
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_sampler_has_the_bundles_ratio_and_recognizes_spans_that_services_sampled(
    environment: str,
) -> None:
    found = platform(environment)
    (ratio,) = {each.bundle.tracing.sample_ratio for each in found.microservices}
    processors = document(collector(environment), "collector.json")["processors"]
    assert processors["probabilistic_sampler"]["sampling_percentage"] == float(ratio) * 100
    (decided,) = processors["attributes/decided"]["include"]["resources"]
    for each in found.microservices:
        (workload,) = (made for made in each.resources() if made["kind"] == "Deployment")
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        variable = {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": f"{decided['key']}={decided['value']}"}
        assert variable in container["env"]


def test_the_collectors_queues_hold_the_longest_outage_with_a_replica_missing() -> None:
    found = collector("prod")
    for backend in found.backends:
        capacity = found.queue(backend).units * (found.replicas - 1)
        assert capacity >= backend.bytes_per_second.units * found.outage.seconds * 0.999


def test_executions_spans_and_log_lines_follow_from_calls_and_events() -> None:
    store = datastore("postgresql", operation("read", p95="10ms", deadline="100ms"))
    behind = service(
        "behind",
        operation(
            "run", stage(hard("postgresql.read", "idempotent")), p95="50ms", deadline="1s", publishes=("row.made",)
        ),
    )
    hearing = service("hearing", operation("take", p95="50ms", deadline="1s", background=True, consumes=("row.made",)))
    entrance = Gateway(
        name="gateway",
        namespace="voice-gateway",
        availability=Ratio("99.99%"),
        operations=(
            operation("route", stage(soft("behind.run", "nothing")), p95="100ms", deadline="2s", load=Rate("10/s")),
        ),
    )
    events = datastore(
        "events", operation("append", p95="1ms", deadline="10ms"), operation("consume", p95="1ms", deadline="10ms")
    )
    found = small_platform(store, events, behind, hearing, entrance)
    rates = executions(found.graph)
    assert rates["behind", "run"] == rates["postgresql", "read"] == rates["hearing", "take"] == 10
    # Five spans for each request: the route, its call, the operation, its call, and the operation that consumes the
    # event.
    ratio = float(found.environment.settings.trace_sample_ratio)
    assert telemetry.spans_per_second(found.graph, found.environment) == pytest.approx(50 * ratio)
    # The gateway logs one line for a request, and so does each service that runs an operation for the request.
    share = found.environment.profile.load_share
    assert telemetry.log_bytes(found.graph, found.environment).units == 30 * share * telemetry.LINE_BYTES


def made(environment: str, changes: dict[str, object]) -> Platform:
    config = {key: value for key, value in configured(environment).items() if key.startswith(f"{PROJECT}:")}
    changed = {**config, **{f"{PROJECT}:{key}": value for key, value in changes.items()}}
    settings = parse_settings(changed, environment, TENANT)
    found = Platform(TENANT, environment_of(settings, TENANT))
    assert found.components
    return found


def refused(environment: str, **changes: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        made(environment, changes)
    return str(caught.value)


@pytest.mark.parametrize(("environment", "refusing"), [("staging", 2), ("prod", 3)])
def test_one_error_names_every_setting_that_needs_a_larger_disk(environment: str, refusing: int) -> None:
    metrics = {"retention": "400d", "storage": "50Gi"}
    said = refused(environment, trace_sample_ratio="100%", metrics=metrics).splitlines()
    assert said[0] == f"Pulumi.{environment}.yaml: {refusing} faults"
    ratio, retention = "config.voiceassistant:trace_sample_ratio", "config.voiceassistant:metrics.retention"
    expected = [
        f"  {ratio}: is '100%'; Elasticsearch.streams.voice-traces: 3d and the current day, at ",
        f"  {ratio}: is '100%'; Collector.backends: the data of an outage of 30m needs ",
        f"  {retention}: is '400d'; Prometheus.retention: 400d and the current day, at ",
    ]
    for line, beginning in zip(said[1:], expected[-refusing:], strict=True):
        assert line.startswith(beginning)


def test_a_collector_refuses_a_disk_without_room_for_compaction() -> None:
    found = collector("prod")
    queues = sum(found.queue(backend).units for backend in found.backends) * FRAGMENTATION
    with pytest.raises(ValidationError, match="the data of an outage of 30m needs"):
        Collector(**{**dict(found), "storage": Bytes.of_units(ceil(queues / FILL_LIMIT))})


@pytest.mark.parametrize(("document", "environment"), [("metrics.md", "staging"), ("telemetry.md", "prod")])
def test_the_refusal_in_a_document_is_the_real_message(document: str, environment: str) -> None:
    """The numbers may differ, because they grow with the services."""
    shown = f"```\nvoice: {refused(environment, trace_sample_ratio='100%')}\n```\n"
    assert masked(shown) in masked((ROOT / "docs" / document).read_text())


def masked(text: str) -> str:
    return re.sub(r"\d+\.\d+|\d+(?=Gi)", "N", text)


def test_one_error_lists_all_invalid_settings() -> None:
    said = refused("prod", trace_sample_ratio="110%", metrics={"retention": "long", "size": "1Gi"}, nodes="anywhere")
    assert "4 faults" in said
    assert "trace_sample_ratio: is '110%'; expected a ratio from 0% to 100%" in said
    assert "metrics.retention: is 'long'" in said
    assert "metrics.size: is '1Gi'; not a known key" in said
    assert "nodes: is 'anywhere'" in said


def test_prod_without_notifications_is_refused() -> None:
    assert "notifications: is missing; profile prod requires it: Alertmanager" in refused("prod", notifications=None)


def test_one_error_lists_all_routes_to_undeclared_receivers() -> None:
    routes = tuple(
        AlertRoute.model_validate({"receiver": name, "team": "knowledge", "repeat": Duration("1h")})
        for name in ("knowlege", "on-call", "on-cal")
    )
    with pytest.raises(ValidationError) as caught:
        Alertmanager.model_validate({**dict(alertmanager("prod")), "routes": routes, "default": "platfrom"})
    said = str(caught.value)
    assert "default: receiver platfrom is not declared" in said
    assert "routes[0]: receiver knowlege is not declared; expected one of conversations" in said
    assert "routes[2]: receiver on-cal is not declared" in said
    assert "routes[1]" not in said


def test_a_route_that_matches_every_alert_and_does_not_continue_is_refused() -> None:
    routes = (AlertRoute(receiver="on-call", repeat=Duration("1h")),)
    with pytest.raises(ValidationError, match=r"routes\[0\]: matches every alert"):
        Alertmanager.model_validate({**dict(alertmanager("prod")), "routes": routes})


def test_a_route_that_copies_every_alert_is_accepted() -> None:
    routes = (AlertRoute(receiver="on-call", repeat=Duration("1h"), continue_=True),)
    found = Alertmanager.model_validate({**dict(alertmanager("prod")), "routes": routes})
    (route,) = json.loads(found.files["alertmanager.json"])["route"]["routes"]
    assert route["matchers"] == []
    assert route["continue"]


def test_one_error_lists_all_duplicate_targets_and_rules() -> None:
    found = prometheus("prod")
    doubled = {**dict(found), "targets": found.targets * 2, "groups": found.groups * 2}
    with pytest.raises(ValidationError) as caught:
        Prometheus.model_validate(doubled)
    said = str(caught.value)
    assert "targets: agent-engine appears twice" in said
    assert "groups: OperationSlow None appears twice" in said


def stateful_sets(environment: str) -> list[dict[str, Any]]:
    return [
        resource["spec"]
        for resource in resources(environment)
        if resource["kind"] == "StatefulSet" and resource["metadata"]["namespace"] == "voice-observability"
    ]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_stateful_pods_of_the_tier_have_no_token_and_no_host_path(environment: str) -> None:
    for spec in stateful_sets(environment):
        pod = spec["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert not any("hostPath" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_stateful_sets_of_the_tier_keep_their_volumes(environment: str) -> None:
    for spec in stateful_sets(environment):
        assert spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
