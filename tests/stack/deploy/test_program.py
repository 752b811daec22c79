from __future__ import annotations

import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import rpc

from components.secret_keys import SecretKeys
from stack.deploy.main import FRAMES
from stack.deploy.operators import operator_of
from stack.model.settings import SECRETS, load_settings
from stack.output.render import Index, rendered_files
from stack.voiceassistant import TENANT
from stack.voiceassistant.site import APPS
from tests.platforms import ENVIRONMENTS
from tests.stack.deploy.program_run import (
    BALANCER,
    CLUSTER,
    NODE_PORT,
    Registration,
    Run,
    configured,
    deployed,
    offline,
    pin_images,
    run_program,
)

GATE = "pulumi:index:Stash"
NAMESPACE = "kubernetes:core/v1:Namespace"
SECRET = "kubernetes:core/v1:Secret"  # noqa: S105 - a type


@cache
def manifests(environment: str) -> dict[tuple[str, str], dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        pin_images(patch)
        files = list(rendered_files(offline(environment), Index(environment)))
    documents = [document for path, text in files if path.endswith(".yaml") for document in yaml.safe_load_all(text)]
    return {(_type(document), _name(document)): document for document in documents}


def _type(document: Mapping[str, Any]) -> str:
    version = document["apiVersion"]
    return f"kubernetes:{version if '/' in version else f'core/{version}'}:{document['kind']}"


def _name(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    return "/".join([*filter(None, [metadata.get("namespace")]), metadata["name"]])


def rendered_registrations(run: Run) -> Iterator[Registration]:
    return (found for found in run.kubernetes if found.type != SECRET)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_registered_resources_equal_the_rendered_resources(environment: str) -> None:
    registered = {
        (found.type, found.name): _as_rendered(found) for found in rendered_registrations(deployed(environment))
    }
    assert len(registered) > 100
    assert registered == manifests(environment)


def _as_rendered(found: Registration) -> dict[str, Any]:
    metadata = found.properties["metadata"]
    kept = {key: value for key, value in metadata.get("annotations", {}).items() if not key.startswith("pulumi.com/")}
    others = {key: value for key, value in metadata.items() if key != "annotations"}
    return {**found.properties, "metadata": {**others, **({"annotations": kept} if kept else {})}}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_parent_of_every_resource_is_its_component(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = deployed(environment)
    pin_images(monkeypatch)  # the name of a Job contains a hash of its content, which includes the image
    parents = {
        (_type(resource), _name(resource)): f"voice:components:{component.kind}::{component.namespace}/{component.name}"
        for component in offline(environment).components
        for resource in component.resources()
    }
    for found in rendered_registrations(run):
        assert found.parent.endswith(f"::{parents[found.type, found.name]}")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_tier_waits_for_the_tier_before_it(environment: str) -> None:
    """A Deployment in the third tier depends on the second tier, because Pulumi waits until the Deployment is ready.

    A ConfigMap in the third tier depends on the first tier.
    """
    run = deployed(environment)
    ranks = ranks_of_components(environment)
    tiers: dict[str, set[str]] = defaultdict(set)
    awaited: dict[str, set[str]] = defaultdict(set)
    for found in run.kubernetes:
        rank = ranks[run.by_urn[found.parent].type, run.by_urn[found.parent].name]
        tiers[rank].add(found.urn)
        if _is_awaited(found):
            awaited[rank].add(found.urn)
    gates = {found.name.removeprefix("tier-"): found for found in run.registrations if is_gate(found)}
    assert gates.keys() == tiers.keys()
    below: set[str] = set()
    two_below: set[str] = set()
    for rank in sorted(tiers):
        rendered = {urn for urn in tiers[rank] if run.by_urn[urn].type != SECRET}
        assert gates[rank].dependencies == (awaited[rank] or rendered) | below
        for urn in tiers[rank]:
            waited = run.by_urn[urn].dependencies - claims(run)
            assert waited == ((below if urn in awaited[rank] else two_below) or own_namespace(run, urn))
        below, two_below = {gates[rank].urn}, below
    assert not awaited["10"], "the first tier has no workload, so its gate waits for the namespaces"


def is_gate(found: Registration) -> bool:
    return found.type == GATE and not found.protected


def ranks_of_components(environment: str) -> dict[tuple[str, str], str]:
    return {
        (f"voice:components:{found.kind}", f"{found.namespace}/{found.name}"): found.folder[:2]
        for found in offline(environment).components
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pods_mount_nothing_that_is_created_after_their_tier(environment: str) -> None:
    """Otherwise Pulumi would wait forever, because it creates the mounted object only after these pods are ready."""
    run = deployed(environment)
    ranks = ranks_of_components(environment)
    created = {
        (found.properties["kind"], found.name): ranks[run.by_urn[found.parent].type, run.by_urn[found.parent].name]
        for found in run.kubernetes
    }
    mounted = 0
    for found in run.kubernetes:
        namespace = found.properties["metadata"].get("namespace")
        rank = ranks[run.by_urn[found.parent].type, run.by_urn[found.parent].name]
        for kind, name in _needs(found.properties.get("spec")):
            assert created.get((kind, f"{namespace}/{name}"), rank) <= rank, (found.name, kind, name)
            mounted += (kind, f"{namespace}/{name}") in created
    assert mounted > 100


KINDS_OF_FIELDS = {
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "persistentVolumeClaim": "PersistentVolumeClaim",
    "secret": "Secret",
    "secretKeyRef": "Secret",
    "serviceAccountName": "ServiceAccount",
}
NAME_FIELDS = ("claimName", "name", "secretName")


def _needs(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if kind := KINDS_OF_FIELDS.get(key):
                names = [inner] if isinstance(inner, str) else [inner.get(field) for field in NAME_FIELDS]
                yield from ((kind, name) for name in names if name)
            yield from _needs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _needs(inner)


def own_namespace(run: Run, urn: str) -> set[str]:
    name = run.by_urn[urn].properties["metadata"].get("namespace")
    return {found.urn for found in run.kubernetes if found.type == NAMESPACE and found.name == name}


def claims(run: Run) -> set[str]:
    return {found.urn for found in run.kubernetes if found.type.endswith(":PersistentVolumeClaim")}


def _is_awaited(found: Registration) -> bool:
    if found.type.endswith(":Service"):
        return bool(found.properties["spec"]["type"] == "LoadBalancer")
    is_workload = found.type.endswith((":DaemonSet", ":Deployment", ":Job", ":StatefulSet"))
    return is_workload or operator_of(found.properties["apiVersion"]) is not None


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pulumi_waits_neither_for_claims_nor_for_services_without_load_balancer(environment: str) -> None:
    unawaited = {
        found.urn
        for found in deployed(environment).kubernetes
        if found.properties["metadata"].get("annotations", {}).get("pulumi.com/skipAwait") == "true"
    }
    kinds = {found.urn: found for found in deployed(environment).kubernetes}
    assert unawaited == {
        urn
        for urn, found in kinds.items()
        if found.type.endswith((":Service", ":PersistentVolumeClaim")) and not _is_awaited(found)
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_claims_are_created_before_their_stateful_set(environment: str) -> None:
    run = deployed(environment)
    by_name = {run.by_urn[urn].name: urn for urn in claims(run)}
    sets = [found for found in run.kubernetes if found.type.endswith(":StatefulSet")]
    looked_for = 0
    for found in sets:
        spec = found.properties["spec"]
        for template in spec.get("volumeClaimTemplates", []):
            for ordinal in range(int(spec["replicas"])):
                claim = f"{template['metadata']['name']}-{found.properties['metadata']['name']}-{ordinal}"
                urn = by_name[f"{found.properties['metadata']['namespace']}/{claim}"]
                assert urn in found.dependencies
                assert run.by_urn[urn].properties["spec"] == template["spec"]
                looked_for += 1
    assert looked_for > 0


def test_the_state_keeps_a_short_call_stack_of_each_resource() -> None:
    assert {found.frames for found in deployed("dev").kubernetes} <= set(range(1, FRAMES))
    assert not hasattr(sys, "tracebacklimit")


@pytest.mark.parametrize(("environment", "most"), [("dev", 800), ("prod", 2000)])
def test_the_number_of_dependencies_stays_small(environment: str, most: int) -> None:
    """For each dependency Pulumi searches for a cycle. With 36,522 dependencies in prod, this took 23 s of 26 s."""
    assert sum(len(found.dependencies) for found in deployed(environment).registrations) <= most


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_pulumi_waits_for_a_job_longer_than_the_job_may_take(environment: str) -> None:
    jobs = [found for found in deployed(environment).kubernetes if found.type.endswith(":Job")]
    assert jobs
    for job in jobs:
        assert int(job.create_timeout.removesuffix("s")) > job.properties["spec"]["activeDeadlineSeconds"]


def test_only_resources_that_hold_data_are_protected_and_retained_in_prod() -> None:
    run = deployed("prod")
    kept = {(found.properties["kind"], found.name) for found in run.kubernetes if found.protected}
    assert kept == {(found.properties["kind"], found.name) for found in run.kubernetes if found.retained}
    claims = {("PersistentVolumeClaim", name) for kind, name in manifests("prod") if kind.endswith("Claim")}
    assert claims
    assert kept >= claims | {
        ("Cluster", "voice-data/postgresql"),
        ("Namespace", "voice-data"),
        ("StatefulSet", "voice-data/consul"),
        ("StatefulSet", "voice-data/events"),
    }
    assert not {kind for kind, _ in kept} & {"Deployment", "ConfigMap", "Secret", "Service"}
    assert ("StatefulSet", "voice-data/redis-node") not in kept, "the cache may be lost"
    assert not [found for name in ("dev", "staging") for found in deployed(name).kubernetes if found.protected]


def test_in_prod_a_protected_resource_stops_pulumi_destroy_before_the_first_deletion() -> None:
    (guard,) = (found for found in deployed("prod").registrations if found.type == GATE and found.protected)
    others = {found.urn for found in deployed("prod").registrations if found.type == GATE and not found.protected}
    last = {max(others)}
    assert guard.dependencies == {found.urn for found in deployed("prod").kubernetes} | last
    assert not [found for name in ("dev", "staging") for found in deployed(name).registrations if found.protected]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_update_overwrites_declared_fields_that_another_client_changed(environment: str) -> None:
    for found in deployed(environment).kubernetes:
        assert found.properties["metadata"]["annotations"]["pulumi.com/patchForce"] == "true"


def test_every_resource_uses_the_one_provider_that_updates_config_maps_and_secrets_in_place() -> None:
    run = deployed("dev")
    (provider,) = (found for found in run.registrations if found.type == "pulumi:providers:kubernetes")
    assert provider.properties == {
        "clusterIdentifier": CLUSTER["/api/v1/namespaces/kube-system"]["metadata"]["uid"],
        "context": "test",
        "enableConfigMapMutable": "true",
        "enableSecretMutable": "true",
    }
    assert {found.provider for found in run.kubernetes} == {f"{provider.urn}::cluster-id"}


def test_kubeconfig_and_context_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**configured("dev"), "kubernetes:kubeconfig": "clusters: []", "kubernetes:context": "other"}
    run = run_program("dev", config, monkeypatch)
    (provider,) = (found for found in run.registrations if found.type == "pulumi:providers:kubernetes")
    assert _revealed(provider.properties["kubeconfig"]) == "clusters: []"
    assert provider.properties["context"] == "other"


def _secret_type(secret: SecretKeys) -> str:
    if secret.name == "registry":
        return "kubernetes.io/dockerconfigjson"
    return "kubernetes.io/basic-auth" if secret.username else "Opaque"


def _data_key(key: str) -> str:
    return ".dockerconfigjson" if key == "dockerconfigjson" else key


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_exactly_the_declared_secrets_are_registered_with_their_values(environment: str) -> None:
    registered = {found.name: found for found in deployed(environment).kubernetes if found.type == SECRET}
    expected = {
        f"{component.namespace}/{secret.name}": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": secret.name,
                "namespace": component.namespace,
                "labels": component.labels | ({"cnpg.io/reload": "true"} if secret.username else {}),
                "annotations": {"pulumi.com/patchForce": "true"},
            },
            "type": _secret_type(secret),
            "data": {
                **{_data_key(key): b64encode(f"value of {secret.name}/{key}".encode()).decode() for key in secret.keys},
                **({"username": b64encode(secret.username.encode()).decode()} if secret.username else {}),
            },
        }
        # If components share a secret, the first component registers it.
        for component in reversed(offline(environment).components)
        for secret in component.secrets
    }
    assert len(expected) == sum(found.type == SECRET for found in deployed(environment).kubernetes)
    revealed = {
        name: {**found.properties, "data": _revealed(found.properties["data"])} for name, found in registered.items()
    }
    assert revealed == expected
    assert any("username" in each["data"] for each in revealed.values()) == (environment != "dev")
    assert all({"data", "stringData"} <= set(found.secret_outputs) for found in registered.values())


def _revealed(value: Any) -> Any:
    assert rpc.is_rpc_secret(value)
    return rpc.unwrap_rpc_secret(value)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_value_of_a_secret_is_only_in_that_secret(environment: str) -> None:
    run = deployed(environment)
    others = [found.properties for found in run.registrations if found.type != SECRET]
    text = repr((others, run.outputs, manifests(environment)))
    for secret, keys in configured(environment)[SECRETS].items():
        assert secret in text
        for value in keys.values():
            assert value not in text
            assert b64encode(value.encode()).decode() not in text


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_outputs_match_the_registered_resources(environment: str) -> None:
    run = deployed(environment)
    found = {(each.type, each.name): each.properties for each in rendered_registrations(run)}
    for service, digest in run.outputs["policy_digests"].items():
        config_map = found["kubernetes:core/v1:ConfigMap", f"voice-apps/{service}-policy"]
        assert config_map["metadata"]["annotations"]["voiceassistant.dev/policy-digest"] == digest
    for addresses in run.outputs["service_addresses"].values():
        for protocol, address in addresses.items():
            host, port = address.split(":")
            name, namespace, *_ = host.split(".")
            spec = found["kubernetes:core/v1:Service", f"{namespace}/{name}"]["spec"]
            assert (spec["ports"][0]["name"], spec["ports"][0]["port"]) == (protocol, int(port))
    services = {service.name for service in offline(environment).microservices}
    assert run.outputs["policy_digests"].keys() == run.outputs["service_addresses"].keys() == services
    inside = environment == "dev"
    assert run.outputs["gateway_addresses"] == {
        "gateway.voice-gateway": {
            "url": f"https://{load_settings(environment, TENANT).gateway_host}",
            "load_balancer": [] if inside else [BALANCER],
            "node_ports": {"http": NODE_PORT, "https": NODE_PORT} if inside else {"http": None, "https": None},
        }
    }
    assert run.outputs["namespaces"] == sorted(offline(environment).environment.profile.quotas)


SERVICES = tuple(service.name for service in offline("staging").microservices)
CHANGES: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "the replicas of a service without autoscaler": (
        {"replicas": {"notification-service": {"min": 3, "max": 3}}},
        {("Deployment", "notification-service")},
    ),
    "the minimum of an autoscaler": (
        {"replicas": {"identity-service": {"min": 3, "max": 5}}},
        {("HorizontalPodAutoscaler", "identity-service")},
    ),
    "the log level": (
        {"log_level": "debug"},
        {
            *(("ConfigMap", f"{service}-settings") for service in SERVICES),
            *(("Deployment", service) for service in SERVICES),
        },
    ),
    "a policy": (
        {"trace_sample_ratio": "51%"},
        {
            *(("ConfigMap", f"{service}-policy") for service in SERVICES),
            ("ConfigMap", "gateway-configuration"),
            ("Deployment", "gateway"),
            ("ConfigMap", "otel-collector-config"),
            ("StatefulSet", "otel-collector"),
            ("ConfigMap", "prometheus-config"),  # a recording rule contains the digest of each bundle
        },
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_changes_only_the_expected_resources(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, expected = CHANGES[change]
    before = deployed("staging").by_urn
    pin_images(monkeypatch)
    after = run_program("staging", configured("staging", **settings), monkeypatch).by_urn
    changed = {urn for urn in after if after[urn] != before[urn]}
    assert before.keys() == after.keys()
    assert {_kind_and_name(urn) for urn in changed} == expected


def test_a_rotated_password_changes_only_the_secrets_of_server_and_client(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured("dev")
    config[SECRETS]["rag-engine-redis"]["password"] = "rotated"  # noqa: S105 - a password of this test
    before = deployed("dev").by_urn
    pin_images(monkeypatch)
    after = run_program("dev", config, monkeypatch).by_urn
    changed = [urn for urn in after if after[urn] != before[urn]]
    assert [_kind_and_name(urn) for urn in changed] == [
        ("Secret", "rag-engine-redis")
    ] * 2  # the server's and the service's


def _kind_and_name(urn: str) -> tuple[str, str]:
    *_, type_, name = urn.split("::")
    return type_.rpartition(":")[2], name.partition("/")[2]


def test_one_reference_image_runs_every_service_of_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    image = "registry.localhost:5000/voice-reference:1.0.0"
    run = run_program("dev", configured("dev", reference_image=image), monkeypatch)
    deployments = [
        found.properties
        for found in run.kubernetes
        if found.type.endswith(":Deployment") and found.name.startswith(f"{APPS}/")
    ]
    images = [each["spec"]["template"]["spec"]["containers"][0]["image"] for each in deployments]
    assert images == [image] * len(SERVICES)


def test_a_pulumi_output_inside_a_string_raises_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.deploy.main.register", lambda *_: [])
    monkeypatch.setattr("stack.deploy.main.outputs", lambda *_: {"text": f"{pulumi.Output.from_input(1)}"})
    with pytest.raises(Exception, match="Calling __str__ on an Output"):
        run_program("dev", configured("dev"), monkeypatch)
