from __future__ import annotations

import json
from typing import Any

import pytest
from voice_policies import Bytes

from components.priority import PRIORITIES, priority_class
from stack.model.environments import environment
from stack.model.platform import Platform
from stack.model.settings import load_settings
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, of_kind, resources


def pod_specs(found: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    specs = []
    for resource in found:
        if resource["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            specs.append((resource["kind"], resource["spec"]["template"]["spec"]))
        elif resource["kind"] == "CronJob":
            specs.append((resource["kind"], resource["spec"]["jobTemplate"]["spec"]["template"]["spec"]))
    return specs


def with_settings(name: str = "prod", **settings: object) -> list[dict[str, Any]]:
    changed = load_settings(name, TENANT).model_copy(update=settings)
    components = Platform(TENANT, environment(changed, TENANT)).components
    return [dict(resource) for component in components for resource in component.resources()]


def claims(found: list[dict[str, Any]]) -> dict[str, str | None]:
    classes = {}
    for resource in found:
        name = resource["metadata"]["name"]
        if resource["kind"] == "PersistentVolumeClaim":
            classes[name] = resource["spec"].get("storageClassName")
        elif resource["kind"] == "StatefulSet":
            for claim in resource["spec"].get("volumeClaimTemplates", []):
                classes[f"{name}/{claim['metadata']['name']}"] = claim["spec"].get("storageClassName")
        elif resource["kind"] == "Cluster":
            for volume in ("storage", "walStorage"):
                classes[f"{name}/{volume}"] = resource["spec"][volume].get("storageClass")
    return classes


def test_each_server_that_stores_data_uses_its_storage_class() -> None:
    assert set(claims(list(resources("prod"))).values()) == {None}
    found = claims(with_settings(storage_classes={"any": "standard", "postgresql": "fast", "elasticsearch": "bulk"}))
    assert {name: found[name] for name in found if name.startswith("postgresql")} == {
        "postgresql/storage": "fast",
        "postgresql/walStorage": "fast",
    }
    assert found["data-elasticsearch-0"] == found["elasticsearch/data"] == "bulk"
    assert set(found.values()) == {"standard", "fast", "bulk"}


def test_the_dumps_of_an_unreplicated_postgresql_use_the_storage_class_of_postgresql() -> None:
    found = claims(with_settings("dev", storage_classes={"postgresql": "fast"}))
    assert {name for name, value in found.items() if value} == {
        "data-postgresql-0",
        "postgresql/data",
        "postgresql-backup",
    }


def images(found: list[dict[str, Any]]) -> set[str]:
    return {
        container["image"]
        for _, pod in pod_specs(found)
        for container in (*pod["containers"], *pod.get("initContainers", []))
    } | {resource["spec"]["imageName"] for resource in found if resource["kind"] == "Cluster"}


def test_a_mirror_replaces_its_registry_in_every_image() -> None:
    mirrors = {"docker.io": "registry.internal/hub", "ghcr.io": "registry.internal/github"}
    found = images(with_settings(registry_mirrors=mirrors, image_repository="registry.internal/voice"))
    assert {image.partition("/")[0] for image in found} == {"registry.internal", "registry.k8s.io"}
    assert "registry.internal/hub/valkey/valkey:9.1.1" in found
    assert "registry.internal/hub/library/postgres:18.6" in found
    assert "registry.internal/github/cloudnative-pg/postgresql:18.6-system-trixie" in found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_pulls_only_missing_images_and_uses_the_pull_secret(environment: str) -> None:
    for _, pod in pod_specs(list(resources(environment))):
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert {container["imagePullPolicy"] for container in pod["containers"]} == {"IfNotPresent"}
    for _, pod in pod_specs(with_settings(environment, image_pull_secret=None)):
        assert "imagePullSecrets" not in pod


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_priorities_order_shared_servers_above_core_above_standard_above_batch(environment: str) -> None:
    classes = {each["metadata"]["name"]: each["value"] for each in of_kind(environment, "PriorityClass")}
    ordered = [classes[priority_class(name)] for name in ("foundation", "core", "standard", "batch")]
    assert ordered == sorted(ordered, reverse=True)
    assert list(classes) == [priority_class(name) for name in PRIORITIES]
    by_namespace: dict[str, set[str]] = {}
    for resource in resources(environment):
        if resource["kind"] in {"Deployment", "StatefulSet", "DaemonSet"}:
            name = resource["spec"]["template"]["spec"]["priorityClassName"]
            by_namespace.setdefault(resource["metadata"]["namespace"], set()).add(name)
    for namespace in ("voice-data", "voice-gateway", "voice-egress"):
        assert by_namespace[namespace] == {"voice-foundation"}
    assert "voice-foundation" not in by_namespace["voice-apps"]
    jobs = {pod["priorityClassName"] for kind, pod in pod_specs(list(resources(environment))) if "Job" in kind}
    assert jobs == {"voice-batch"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_autoscaler_counts_only_the_cpu_of_one_container(environment: str) -> None:
    for autoscaler in of_kind(environment, "HorizontalPodAutoscaler"):
        (metric,) = autoscaler["spec"]["metrics"]
        assert metric["type"] == "ContainerResource"
        assert metric["containerResource"]["name"] == "cpu"


GO_SERVERS = ("alertmanager", "blackbox-exporter", "consul", "grafana", "jaeger", "kube-state-metrics")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_go_programs_get_gomaxprocs_and_80_percent_of_memory_as_gomemlimit(
    environment: str,
) -> None:
    own = {node.name for node in TENANT.graph.services if node.language == "go"}
    wanted, found = own | set(GO_SERVERS), set()
    for resource in resources(environment):
        if resource["metadata"]["name"] in wanted and resource["kind"] in {"Deployment", "StatefulSet"}:
            (container,) = resource["spec"]["template"]["spec"]["containers"]
            values = {each["name"]: each.get("value") for each in container["env"]}
            limit = Bytes(container["resources"]["limits"]["memory"]).units
            assert 0.75 * limit < Bytes(values["GOMEMLIMIT"].replace("MiB", "Mi")).units < 0.85 * limit
            assert int(values["GOMAXPROCS"]) >= 1
            found.add(resource["metadata"]["name"])
    assert found >= own
    assert found >= set(GO_SERVERS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_dns_is_permitted_in_each_mode_of_the_node_local_cache(environment: str) -> None:
    policies = [found for found in of_kind(environment, "NetworkPolicy") if found["metadata"]["name"] == "allow-dns"]
    for policy in policies:
        text = json.dumps(policy["spec"]["egress"])
        # The cluster's DNS pods, the pods of the node-local cache, and the two addresses at which the cache may answer.
        for resolver in ('"kube-dns"', '"node-local-dns"', '"169.254.20.10/32"', '"10.96.0.10/32"'):
            assert resolver in text
    namespaces = [found["metadata"]["name"] for found in of_kind(environment, "Namespace")]
    assert len(policies) == len(namespaces)


def test_a_dual_stack_cluster_permits_dns_and_clients_of_both_address_families() -> None:
    found = with_settings(cluster_dns=("10.96.0.10/32", "fd00:10:96::a/128"))
    policies = {each["metadata"]["name"]: each for each in found if each["kind"] == "NetworkPolicy"}
    assert "fd00:10:96::a/128" in json.dumps(policies["allow-dns"])
    assert {"0.0.0.0/0", "::/0"} <= {
        peer["ipBlock"]["cidr"]
        for rule in policies["gateway"]["spec"]["ingress"]
        for peer in rule["from"]
        if "ipBlock" in peer
    }
    (entrance,) = [
        each["spec"] for each in found if each["kind"] == "Service" and each["metadata"]["name"] == "gateway"
    ]
    assert entrance["ipFamilyPolicy"] == "PreferDualStack"
