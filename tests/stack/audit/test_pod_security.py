"""S01: secrets in plain text, images by tag, and containers that Pod Security refuses."""

from __future__ import annotations

from typing import Any

import pytest

from stack.audit.finding import Finding
from tests.stack.audit.rule_findings import WithManifests, of_manifests, verdict

SECURE = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
SIZES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
PINNED = f"example.com/a@sha256:{'0' * 64}"


def workload(
    security: dict[str, Any] = SECURE, image: str = PINNED, pod: dict[str, Any] | None = None, **container: Any
) -> dict[str, Any]:
    made = {"name": "a", "image": image, "resources": SIZES, "securityContext": security, **container}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [made], **(pod or {})}}
    return {"kind": "Deployment", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": template}}


def found(*documents: dict[str, Any]) -> tuple[Finding, ...]:
    return verdict("S01", of_manifests(*documents)).findings


def test_s01_finds_a_secret_in_a_rendered_file() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "database"}}
    assert found(secret) == ()
    assert len(found({**secret, "stringData": {"password": "x"}})) == 1
    (plain,) = found(workload(env=[{"name": "DB_PASSWORD", "value": "changeme"}]))
    assert plain.arithmetic == "DB_PASSWORD in plain text"
    named = {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}}
    assert found(workload(env=[named])) == ()


def test_s01_finds_a_secret_that_a_whole_config_map_gives() -> None:
    settings = {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"TOKEN": "x"}}
    whole = workload(envFrom=[{"prefix": "API_", "configMapRef": {"name": "settings"}}])
    (plain,) = found(settings, whole)
    assert plain.arithmetic == "API_TOKEN in plain text"
    key = {"name": "TOKEN", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "TOKEN"}}}
    assert len(found(settings, workload(env=[key]))) == 1
    assert found({**settings, "data": {"LEVEL": "info"}}, whole) == ()
    assert found(whole, workload(envFrom=[{"secretRef": {"name": "settings"}}])) == ()


def test_s01_finds_a_secret_of_an_init_container() -> None:
    first = {"name": "first", "image": PINNED, "resources": SIZES, "securityContext": SECURE}
    plain = {**first, "env": [{"name": "PASSWORD", "value": "changeme"}]}
    assert len(found(workload(pod={"initContainers": [plain]}))) == 1
    assert found(workload(pod={"initContainers": [first]})) == ()


@pytest.mark.parametrize(("image", "count"), [("example.com/a:1.0.0", 1), (PINNED, 0)])
def test_s01_finds_an_image_that_may_change_where_the_profile_is_strict(image: str, count: int) -> None:
    assert found(workload(image=image)) == (), "the toy's profile is not strict"
    strict = WithManifests((), (workload(image=image),))
    profile = strict.environment.profile.model_copy(update={"strict": True})
    strict.environment = strict.environment.model_copy(update={"profile": profile})
    assert [each.path for each in verdict("S01", strict).findings] == ["images.lock.yaml"] * count


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation is not false"),
        ({"runAsNonRoot": False}, "runAsNonRoot is not true"),
        ({"capabilities": {"drop": ["NET_RAW"]}}, "capabilities are not dropped"),
        ({"seccompProfile": {"type": "Unconfined"}}, "seccompProfile is not RuntimeDefault"),
        ({"privileged": True}, "privileged"),
        ({"runAsUser": 0}, "runAsUser is 0"),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "the capability NET_ADMIN"),
    ],
)
def test_s01_finds_a_container_that_restricted_refuses(changed: dict[str, Any], reason: str) -> None:
    (refused,) = found(workload({**SECURE, **changed}))
    assert refused.arithmetic == f"restricted refuses it: {reason}"
    assert found(workload()) == ()


def test_s01_finds_a_port_of_the_node() -> None:
    (refused,) = found(workload(ports=[{"containerPort": 80, "hostPort": 80}]))
    assert refused.arithmetic == "restricted refuses it: hostPort 80"
    assert found(workload(ports=[{"containerPort": 80}])) == ()


@pytest.mark.parametrize("pod", [{"hostNetwork": True}, {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}])
def test_s01_finds_a_pod_that_reaches_its_node(pod: dict[str, Any]) -> None:
    assert len(found(workload(pod=pod))) == 1
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    freed = {"kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
    assert found(workload(pod=pod), freed) == (), "its namespace says so"
