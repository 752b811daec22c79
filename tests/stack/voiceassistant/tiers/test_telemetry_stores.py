from __future__ import annotations

import json
from fnmatch import fnmatch
from functools import cache
from typing import Any, TypeVar

import pytest
import yaml
from voice_policies import InvalidInputError

from components.component import Component
from components.observability.dashboard_json import dashboard_json
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import LOGS_PATTERN, SUPERUSER
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana
from components.observability.jaeger import Jaeger
from components.observability.kibana import Kibana
from components.observability.tempo import Tempo
from stack.model.settings import PROJECT, parse_settings
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, of_kind, platform, resources
from tests.stack.deploy.program_run import configured

Kind = TypeVar("Kind", bound=Component)
REPLICATED = ("staging", "prod")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


@cache
def the(kind: type[Kind], environment: str = "prod") -> Kind:
    (found,) = (each for each in platform(environment).components if isinstance(each, kind))
    return found


def rendered(component: Component, kind: str) -> list[dict[str, Any]]:
    return [dict(resource) for resource in component.resources() if resource["kind"] == kind]


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    spec = workload["spec"].get("jobTemplate", workload)["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def test_tempo_sends_span_metrics_and_the_service_graph_to_every_replica_of_prometheus() -> None:
    for environment, replicas in (("dev", 1), ("staging", 2), ("prod", 2)):
        configuration = json.loads(the(Tempo, environment).files["tempo.json"])
        made = configuration["overrides"]["defaults"]["metrics_generator"]["processors"]
        assert set(made) == {"service-graphs", "span-metrics"}
        urls = [each["url"] for each in configuration["metrics_generator"]["storage"]["remote_write"]]
        assert urls == [
            f"http://prometheus-{index}.prometheus-replicas.voice-observability.svc.cluster.local:9090/api/v1/write"
            for index in range(replicas)
        ]


@pytest.mark.parametrize(
    ("environment", "bucket", "sentence"),
    [
        ("prod", None, "trace_bucket: is missing; profile prod requires it: Tempo"),
        ("dev", "traces", "trace_bucket: is 'traces'; profile dev refuses it: Tempo keeps its traces on a volume"),
        ("prod", "Bad_Bucket", "trace_bucket: is 'Bad_Bucket'"),
    ],
)
def test_an_invalid_trace_bucket_is_refused(environment: str, bucket: str | None, sentence: str) -> None:
    config = {key: value for key, value in configured(environment).items() if key.startswith(f"{PROJECT}:")}
    with pytest.raises(InvalidInputError) as caught:
        parse_settings({**config, f"{PROJECT}:trace_bucket": bucket}, environment, TENANT)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("environment", REPLICATED)
def test_only_the_log_shipper_mounts_directories_of_the_node_and_it_is_alone_in_its_namespace(environment: str) -> None:
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


def test_grafana_and_the_collector_use_the_data_stream_in_which_elasticsearch_puts_log_lines() -> None:
    """Sources: `TargetIndex.evaluate` and `LogDocumentBuilder` in Elasticsearch's x-pack/plugin/otel-data."""
    (sender,) = (each for each in the(Elasticsearch).users if each.account.user == "otel-collector")
    for pattern in (*sender.indices, LOGS_PATTERN):
        assert fnmatch("logs-generic.otel-default", pattern)
    (source,) = (
        each for each in yaml.safe_load(the(Grafana).files["datasources.yaml"])["datasources"] if each["uid"] == "logs"
    )
    shown = {key: source["jsonData"][key] for key in ("index", "timeField", "logMessageField", "logLevelField")}
    assert shown == {
        "index": LOGS_PATTERN,
        "timeField": "@timestamp",
        "logMessageField": "body.text",
        "logLevelField": "severity_text",
    }
    (board,) = (each for each in the(Grafana).dashboards if each.uid == "service")
    panel = json.loads(dashboard_json(board))["panels"][-1]
    assert panel["targets"][0]["query"] == (
        'attributes.kubernetes.container_name:"$service" OR resource.attributes.service.name:"$service"'
    )


def test_dev_has_no_log_shipper_and_only_grafana_shows_logs() -> None:
    kinds = {type(found) for found in platform("dev").components}
    assert {Elasticsearch, Jaeger, Tempo, Grafana} <= kinds
    assert not {Kibana, FluentBit} & kinds
    assert not any(found["kind"] == "DaemonSet" for found in resources("dev"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_elasticsearch_has_a_user_for_each_secret_that_its_clients_read(environment: str) -> None:
    index = the(Elasticsearch, environment)
    users = {user.account.secret.name for user in index.users}
    read = {
        secret.name
        for component in platform(environment).components
        if component is not index
        for secret in component.secrets
        if secret.name.endswith("-elasticsearch")
    }
    assert read - users == set()
    assert users - read <= {"otel-collector-elasticsearch"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_user_interfaces_of_telemetry_have_their_replicas_and_disruption_budgets(environment: str) -> None:
    replicas = {Jaeger: 2, Kibana: 2, Grafana: 1}
    for kind, count in replicas.items():
        if environment == "dev" and kind is Kibana:
            continue
        component: Component = the(kind, environment)
        (found,) = rendered(component, "Deployment")
        wanted = 1 if environment == "dev" else count
        assert found["spec"]["replicas"] == wanted
        assert len(rendered(component, "PodDisruptionBudget")) == int(wanted > 1)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_service_dashboard_offers_every_service(environment: str) -> None:
    (board,) = (each for each in the(Grafana, environment).dashboards if each.uid == "service")
    (variable,) = json.loads(dashboard_json(board))["templating"]["list"]
    assert variable["query"].split(",") == [service.name for service in platform(environment).graph.services]
    assert variable["current"]["value"] in board.variables[0].values


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_user_of_elasticsearch_but_the_superuser_has_all_privileges(environment: str) -> None:
    for user in the(Elasticsearch, environment).users:
        assert not {"all", "manage", "manage_security"} & set(user.cluster)
        assert "*" not in user.indices
        assert user.account != SUPERUSER
