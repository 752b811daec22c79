"""Jaeger, Tempo, Kibana and Fluent Bit as rendered: where they keep what, who may reach them, what is refused."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import Bytes, Duration, InvalidInputError

from components.component import Component
from components.observability.collector_config import HTTP_PORT
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import LOGS_PATTERN, requests
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana
from components.observability.jaeger import InMemory, Jaeger
from components.observability.kibana import Kibana
from components.observability.retention import Stream
from components.observability.tempo import Tempo
from stack.model.settings import PROJECT, parse_settings
from stack.voiceassistant import TENANT
from tests.components.observability.stores import REPLICATED, documents, rendered, the
from tests.fluent_bit import ECS_LINE, GO_LINE, filtered, json_line, shipped
from tests.platforms import ENVIRONMENTS, of_kind, platform, resources
from tests.stack.deploy.program_run import configured

SMALLEST_RECORD = 60
"""In bytes, of the members of `kubernetes` alone: names of the shortest kind, and an identifier of 64 digits."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    spec = workload["spec"].get("jobTemplate", workload)["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def test_dev_forgets_its_traces_and_the_others_keep_them_for_as_long_as_jaeger_looks_back() -> None:
    assert the(Jaeger, "dev").storage == InMemory(max_traces=10_000)
    for environment in REPLICATED:
        store = documents(environment)["jaeger"]["extensions"]["jaeger_storage"]["backends"]["traces"]["elasticsearch"]
        (stream,) = (each for each in the(Elasticsearch, environment).streams if each.name == "voice-traces")
        assert store["max_span_age"] == f"{stream.retention.whole_seconds()}s"
        assert store["auth"]["basic"]["password_file"].startswith("/etc/voice/secrets/jaeger-elasticsearch/")
        assert {index["replicas"] for index in store["indices"].values()} == {stream.copies - 1}


def test_jaegers_lifecycle_deletes_and_never_rolls_over_what_jaeger_names_by_the_day() -> None:
    index = the(Elasticsearch)
    bodies = {each.path: each.body for each in requests(index.streams, index.users)}
    phases = {name: bodies[f"/_ilm/policy/{name}"]["policy"]["phases"] for name in ("voice-traces", "voice-logs")}
    assert phases["voice-traces"].keys() == {"delete"}
    assert phases["voice-logs"].keys() == {"hot", "delete"}
    # Both keep the last line of a day for as long as is said: an index of a day that never rolls over is older by it.
    ages = {name: found["delete"]["min_age"] for name, found in phases.items()}
    kept = {stream.name: stream.retention for stream in index.streams}
    assert ages == {"voice-traces": str(kept["voice-traces"] + Duration("1d")), "voice-logs": str(kept["voice-logs"])}
    settings = bodies["/_component_template/logs@custom"]["template"]["settings"]
    assert settings["index.lifecycle.name"] == "voice-logs"


def test_traces_that_memory_does_not_hold_and_replicas_that_share_none_are_refused_at_once() -> None:
    storage = InMemory(max_traces=20_000)
    with pytest.raises(ValidationError) as caught:
        Jaeger.model_validate({**dict(the(Jaeger, "dev")), "storage": storage, "replicas": 2})
    assert "replicas is 2: in memory each would hold other traces, expected 1" in str(caught.value)
    assert "max_traces is 20000: 512Mi of memory hold 13107" in str(caught.value)


def test_tempo_keeps_blocks_on_its_disk_in_dev_and_in_the_object_store_elsewhere() -> None:
    assert documents("dev")["tempo"]["storage"]["trace"]["backend"] == "local"
    for environment in REPLICATED:
        storage = documents(environment)["tempo"]["storage"]["trace"]
        bucket = f"voicehelper-{environment}-traces"
        assert storage["s3"] == {"bucket": bucket, "endpoint": "objects.voicehelper.internal:443"}
        (found,) = rendered(the(Tempo, environment), "StatefulSet")
        (container,) = pod_of(found)["containers"]
        (file,) = (each["value"] for each in container["env"] if each["name"] == "AWS_SHARED_CREDENTIALS_FILE")
        assert any(file == f"{mount['mountPath']}/credentials" for mount in container["volumeMounts"])


def test_tempo_makes_span_metrics_and_the_service_graph_for_every_replica_of_prometheus() -> None:
    for environment, replicas in (("dev", 1), ("staging", 2), ("prod", 2)):
        configuration = documents(environment)["tempo"]
        made = configuration["overrides"]["defaults"]["metrics_generator"]["processors"]
        assert set(made) == {"service-graphs", "span-metrics"}
        urls = [each["url"] for each in configuration["metrics_generator"]["storage"]["remote_write"]]
        assert urls == [
            f"http://prometheus-{index}.prometheus-replicas.voice-observability.svc.cluster.local:9090/api/v1/write"
            for index in range(replicas)
        ]


def test_blocks_that_tempos_own_disk_does_not_hold_are_refused() -> None:
    stream = Stream(name="voice-traces", daily=Bytes("1Gi"), retention=Duration("30d"))
    with pytest.raises(
        ValidationError, match=r"30d of 1\.0 GiB a day need 31\.0 GiB, and 85% of the disk \(5\.0 GiB\)"
    ):
        Tempo.model_validate({**dict(the(Tempo, "dev")), "stream": stream})
    Tempo.model_validate({**dict(the(Tempo, "prod")), "stream": stream})


@pytest.mark.parametrize(
    ("environment", "bucket", "sentence"),
    [
        ("prod", None, "trace_bucket: is missing; profile prod requires it: Tempo"),
        ("dev", "traces", "trace_bucket: is 'traces'; profile dev refuses it: Tempo keeps its traces on a volume"),
        ("prod", "Bad_Bucket", "trace_bucket: is 'Bad_Bucket'"),
    ],
)
def test_a_bucket_that_cannot_be_is_refused(environment: str, bucket: str | None, sentence: str) -> None:
    config = {key: value for key, value in configured(environment).items() if key.startswith(f"{PROJECT}:")}
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**config, f"{PROJECT}:trace_bucket": bucket}, environment, TENANT)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("environment", REPLICATED)
def test_the_shipper_alone_reads_the_node_and_is_alone_in_its_namespace(environment: str) -> None:
    reading = [
        (found["metadata"]["namespace"], found["metadata"]["name"])
        for kind in WORKLOADS
        for found in of_kind(environment, kind)
        if any("hostPath" in volume for volume in pod_of(found)["volumes"])
    ]
    assert reading == [("voice-node-agents", "fluent-bit")]
    levels = {
        found["metadata"]["name"]: found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for found in of_kind(environment, "Namespace")
    }
    assert {name for name, level in levels.items() if level != "restricted"} == {"voice-node-agents"}
    pods = {found.name for found in platform(environment).components if found.namespace == "voice-node-agents"}
    assert pods == {"fluent-bit", "voice-node-agents"}
    assert {exemption.rule for exemption in the(FluentBit, environment).exemptions} == {"run_as_user", "no_host_path"}


@pytest.mark.parametrize("environment", REPLICATED)
def test_the_shipper_may_read_the_nodes_logs_and_write_its_own_state_and_no_more(environment: str) -> None:
    (found,) = rendered(the(FluentBit, environment), "DaemonSet")
    pod = pod_of(found)
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    (container,) = pod["containers"]
    writable = {each["name"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert paths == {"logs": "/var/log", "state": "/var/lib/fluent-bit"}
    assert writable & paths.keys() == {"state"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC"))


@pytest.mark.parametrize("environment", REPLICATED)
def test_lines_wait_on_the_node_within_limits_and_go_to_the_collector_with_no_credential(environment: str) -> None:
    pipeline = documents(environment)["fluent-bit"]["pipeline"]
    (source,), (target,) = pipeline["inputs"], pipeline["outputs"]
    assert source["storage.type"] == "filesystem"
    assert target["storage.total_limit_size"] == "1024M"
    assert 0 < target["retry_limit"] < 1000
    assert target["host"] == "otel-collector.voice-observability.svc.cluster.local"
    assert target["port"] == HTTP_PORT
    assert the(FluentBit, environment).secrets == ()
    (policy,) = rendered(the(FluentBit, environment), "NetworkPolicy")
    targets = [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["egress"] for peer in rule["to"]]
    assert targets == [{"app.kubernetes.io/name": "otel-collector"}]
    assert source["path"] == "/var/log/containers/*_voice-*_*.log"
    (names,) = (each for each in pipeline["filters"] if each["name"] == "kubernetes")
    assert names["kube_tag_prefix"] == "kube.var.log.containers."


@pytest.mark.parametrize("line", [json_line("served", tenant="t-1"), ECS_LINE, GO_LINE, "no JSON at all"])
def test_no_key_stands_twice_in_what_is_made_of_a_line(line: str) -> None:
    pipeline = documents("prod")["fluent-bit"]["pipeline"]
    keys = [key for key, _ in filtered(pipeline["filters"], line)]
    assert sorted(keys) == sorted(set(keys))
    record = shipped(pipeline, line)
    assert record["body"] in ({"stringValue": "served"}, {"stringValue": "no JSON at all"})
    assert "kubernetes" in {each["key"] for each in record["attributes"]}
    assert not {"message", "msg"} & {each["key"] for each in record["attributes"]}


def test_log_lines_are_looked_at_where_elasticsearch_puts_them() -> None:
    """Sources: `TargetIndex.evaluate` and `LogDocumentBuilder` in Elasticsearch's x-pack/plugin/otel-data."""
    (sender,) = (each for each in the(Elasticsearch).users if each.account.user == "otel-collector")
    for pattern in (*sender.indices, LOGS_PATTERN):
        assert fnmatch("logs-generic.otel-default", pattern)
    (source,) = (each for each in documents("prod")["data-sources"]["datasources"] if each["uid"] == "logs")
    shown = {key: source["jsonData"][key] for key in ("index", "timeField", "logMessageField", "logLevelField")}
    assert shown == {
        "index": LOGS_PATTERN,
        "timeField": "@timestamp",
        "logMessageField": "body.text",
        "logLevelField": "severity_text",
    }
    panel = documents("prod")["dashboard-service"]["panels"][-1]
    assert panel["targets"][0]["query"] == (
        'attributes.kubernetes.container_name:"$service" OR resource.attributes.service.name:"$service"'
    )


def test_every_record_of_the_largest_chunk_goes_in_one_request() -> None:
    (output,) = documents("prod")["fluent-bit"]["pipeline"]["outputs"]
    assert output["batch_size"] > 2_048_000 / SMALLEST_RECORD


def test_dev_reads_no_node_and_shows_logs_with_grafana_alone() -> None:
    kinds = {type(found) for found in platform("dev").components}
    assert {Elasticsearch, Jaeger, Tempo, Grafana} <= kinds
    assert not {Kibana, FluentBit} & kinds
    assert not any(found["kind"] == "DaemonSet" for found in resources("dev"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_secret_that_a_pod_mounts_is_declared_by_its_component(environment: str) -> None:
    kinds = (Elasticsearch, Jaeger, Tempo, Grafana, *((Kibana, FluentBit) if environment in REPLICATED else ()))
    for kind in kinds:
        component: Component = the(kind, environment)
        declared = {secret.name: set(secret.keys) for secret in component.secrets}
        for workload in (found for name in WORKLOADS for found in rendered(component, name)):
            for volume in pod_of(workload)["volumes"]:
                if "secret" in volume:
                    mounted = volume["secret"]
                    assert {item["key"] for item in mounted["items"]} <= declared[mounted["secretName"]]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_user_of_elasticsearch_has_the_same_secret_at_both_ends(environment: str) -> None:
    index = the(Elasticsearch, environment)
    users = {user.account.secret.name for user in index.users}
    held = {
        secret.name
        for component in platform(environment).components
        if component is not index
        for secret in component.secrets
        if secret.name.endswith("-elasticsearch")
    }
    assert held - users == set()
    assert users - held <= {"otel-collector-elasticsearch"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_kept_in_one_place_alone_what_needs_no_second(environment: str) -> None:
    replicas = {Jaeger: 2, Kibana: 2, Grafana: 1}
    for kind, count in replicas.items():
        if environment == "dev" and kind is Kibana:
            continue
        component: Component = the(kind, environment)
        (found,) = rendered(component, "Deployment")
        wanted = 1 if environment == "dev" else count
        assert found["spec"]["replicas"] == wanted
        assert len(rendered(component, "PodDisruptionBudget")) == int(wanted > 1)
