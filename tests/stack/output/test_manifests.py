from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from stack.deploy.operators import operator_of
from stack.output.render import manifest
from stack.voiceassistant.site import APPS
from tests.platforms import ENVIRONMENTS, VARIANTS, of_kind, platform, resources

KUBERNETES_VERSIONS = ("1.34.0", "1.37.0")
"""The oldest and the newest Kubernetes version that the manifests support."""
WITHOUT_NAMESPACE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
SERVICES = [service.name for service in platform("prod").microservices]


@cache
def definitions(version: str) -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local-strict"
    loaded: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return loaded


@cache
def validator(version: str, api_version: str, kind: str) -> Draft202012Validator:
    identity = {"apiVersion": [api_version], "kind": [kind]}
    (name,) = [
        name
        for name, schema in definitions(version).items()
        if {key: schema.get("properties", {}).get(key, {}).get("enum") for key in identity} == identity
    ]
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions(version)})


def is_custom(resource: dict[str, Any]) -> bool:
    """True for a custom resource. The tests of the tiers check custom resources against their schemas."""
    return operator_of(resource["apiVersion"]) is not None


def schema_faults(resource: dict[str, Any], version: str) -> list[str]:
    found = validator(version, resource["apiVersion"], resource["kind"]).iter_errors(resource)
    return [f"{resource['kind']} {resource['metadata']['name']}: {error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_resource_is_strictly_valid(environment: str, version: str) -> None:
    own = [resource for resource in resources(environment) if not is_custom(resource)]
    assert [fault for resource in own for fault in schema_faults(resource, version)] == []


def test_the_schema_finds_a_misspelt_field() -> None:
    deployment = json.loads(json.dumps(of_kind("prod", "Deployment")[0]))
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolcy"] = "Always"
    assert "imagePullPolcy" in schema_faults(deployment, KUBERNETES_VERSIONS[1])[0]


def services(environment: str) -> list[dict[str, Any]]:
    return [found for found in of_kind(environment, "Deployment") if found["metadata"]["namespace"] == APPS]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_has_a_deployment(environment: str) -> None:
    assert [deployment["metadata"]["name"] for deployment in services(environment)] == SERVICES


def named(kind: str, name: str, environment: str = "prod") -> dict[str, Any]:
    (found,) = [resource for resource in of_kind(environment, kind) if resource["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_in_prod_a_service_survives_the_loss_of_a_pod_and_a_zone(service: str) -> None:
    deployment = named("Deployment", service)
    autoscalers = [
        found for found in of_kind("prod", "HorizontalPodAutoscaler") if found["metadata"]["name"] == service
    ]
    minimum = autoscalers[0]["spec"]["minReplicas"] if autoscalers else deployment["spec"]["replicas"]
    assert minimum >= 2
    budget = named("PodDisruptionBudget", service)["spec"]
    assert budget["maxUnavailable"] < minimum
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_three_different_probes(service: str) -> None:
    (container,) = named("Deployment", service)["spec"]["template"]["spec"]["containers"]
    startup, liveness, readiness = (container[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    budget = 180 if service in {"multimodal-engine", "voice-engine"} else 60
    assert startup["periodSeconds"] * startup["failureThreshold"] == budget
    assert liveness["httpGet"]["path"] == "/health"
    assert readiness["httpGet"]["path"] == "/ready"
    assert all(probe["timeoutSeconds"] < probe["periodSeconds"] for probe in (startup, liveness, readiness))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_either_the_deployment_or_the_autoscaler_sets_the_replicas(environment: str) -> None:
    scaled = {
        autoscaler["spec"]["scaleTargetRef"]["name"] for autoscaler in of_kind(environment, "HorizontalPodAutoscaler")
    }
    for deployment in of_kind(environment, "Deployment"):
        assert ("replicas" in deployment["spec"]) != (deployment["metadata"]["name"] in scaled)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_single_replica_has_no_disruption_budget(environment: str) -> None:
    alone = {d["metadata"]["name"] for d in of_kind(environment, "Deployment") if d["spec"].get("replicas") == 1}
    assert alone.isdisjoint(budget["metadata"]["name"] for budget in of_kind(environment, "PodDisruptionBudget"))
    # No service calls these servers, and they store nothing that a restart must keep.
    helpers = {"blackbox-exporter", "grafana", "kube-state-metrics"}
    exporters = {"elasticsearch-exporter", "valkey-exporter"}
    assert (alone > helpers) if environment == "dev" else (alone == helpers | exporters)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_pod_of_a_deployment_satisfies_the_restricted_standard(environment: str) -> None:
    for deployment in of_kind(environment, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == deployment["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert min(security["runAsUser"], security["runAsGroup"]) >= 10001
            assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
        assert all(volume.get("emptyDir", {"sizeLimit": True}).get("sizeLimit") for volume in pod["volumes"])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_grace_period_is_longer_than_sleep_drain_and_longest_request_together(environment: str) -> None:
    for service in platform(environment).microservices:
        pod = named("Deployment", service.name, environment)["spec"]["template"]["spec"]
        sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        longest = max(operation.deadline.seconds for operation in service.service.operations)
        drain = service.bundle.health.drain_duration.seconds
        assert pod["terminationGracePeriodSeconds"] > sleep + drain + longest


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_configuration_is_mounted_as_directories(environment: str) -> None:
    config_maps = {config_map["metadata"]["name"] for config_map in of_kind(environment, "ConfigMap")}
    for deployment in services(environment):
        pod = deployment["spec"]["template"]["spec"]
        assert not any("subPath" in mount for container in pod["containers"] for mount in container["volumeMounts"])
        mounted = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        assert mounted
        assert mounted == {name for name in config_maps if name.startswith(f"{deployment['metadata']['name']}-")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_secret_value_is_rendered(environment: str) -> None:
    assert of_kind(environment, "Secret") == []
    for deployment in services(environment):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            literal = {variable["name"] for variable in container.get("env", []) if "value" in variable}
            paths = {"VOICE_POLICY_PATH", "VOICE_SETTINGS_PATH"}
            assert literal <= {*paths, "OTEL_RESOURCE_ATTRIBUTES", "APISIX_STAND_ALONE", "GOMEMLIMIT", "GOMAXPROCS"}


@pytest.mark.parametrize("environment", [*ENVIRONMENTS, *VARIANTS])
def test_every_secret_that_a_pod_reads_is_registered_in_its_namespace(environment: str) -> None:
    registered = {
        (component.namespace, secret.name)
        for component in platform(environment).components
        for secret in component.secrets
    }
    read = {
        (resource["metadata"]["namespace"], name)
        for resource in resources(environment)
        if resource["kind"] in {"CronJob", "DaemonSet", "Deployment", "Job", "StatefulSet"}
        for name in secrets_of(resource)
    }
    assert read <= registered
    assert read


def secrets_of(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from secrets_of(each)
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key in {"secret", "secretKeyRef"}:
            yield inner.get("secretName") or inner["name"]
        elif key == "imagePullSecrets":
            yield from (each["name"] for each in inner)
        else:
            yield from secrets_of(inner)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_resource_names_its_namespace(environment: str) -> None:
    for resource in resources(environment):
        assert ("namespace" in resource["metadata"]) != (resource["kind"] in WITHOUT_NAMESPACE)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_written_files_equal_the_built_resources(environment: str) -> None:
    for _, found in platform(environment).resources:
        built = [json.loads(json.dumps(resource)) for resource in found]
        assert list(yaml.safe_load_all(manifest(found, environment))) == built
