"""P05: resources that name an object which nothing creates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.secret_keys import SecretKeys
from stack.audit.finding import Finding
from tests.stack.audit.rule_findings import Manifests, WithManifests, verdict


class WithSecret(Manifests):
    @property
    def secrets(self) -> tuple[SecretKeys, ...]:
        return (SecretKeys(name="store", keys=("password",), username="shop"),)


def document(kind: str, name: str = "a", namespace: str | None = "shop", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": metadata, **fields}


def workload(**pod: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"secret": "a"}}, "spec": {"containers": [{"name": "a"}], **pod}}
    return document("Deployment", spec={"template": template, "selector": {"cluster": "a"}})


def variable(**source: Any) -> dict[str, Any]:
    return workload(containers=[{"name": "a", "env": [{"name": "A", "valueFrom": source}]}])


def volume(**source: Any) -> dict[str, Any]:
    return workload(volumes=[{"name": "a", **source}])


def database(**spec: Any) -> dict[str, Any]:
    return document("Cluster", spec={"instances": 1, **spec})


def object_store(**credentials: Any) -> dict[str, Any]:
    return document("ObjectStore", spec={"instanceSidecarConfiguration": {}, "s3Credentials": credentials})


def found(*documents: dict[str, Any], namespaces: tuple[str, ...] = ("shop", "tools")) -> tuple[Finding, ...]:
    documents = (*documents, *(document("Namespace", name, None) for name in namespaces))
    platform = WithManifests((), documents)
    platform.__dict__["components"] = (WithSecret(name="written", namespace="shop", documents=documents),)
    return verdict("P05", platform).findings


SETTINGS = document("ConfigMap", data={"level": "info"}, binaryData={"logo": "AA=="})


def cases() -> Iterator[Any]:
    keys = {"store": "Secret store", "a": "ConfigMap a"}
    yield pytest.param(volume(configMap={"name": "a"}), None, id="a ConfigMap")
    yield pytest.param(volume(configMap={"name": "b"}), "ConfigMap b", id="an unknown ConfigMap")
    yield pytest.param(volume(configMap={"name": "b", "optional": True}), None, id="an optional ConfigMap")
    for key, known in (("level", True), ("logo", True), ("missing", False)):
        items = {"name": "a", "items": [{"key": key, "path": "a"}]}
        yield pytest.param(volume(configMap=items), None if known else keys["a"], id=f"the key {key} of a ConfigMap")
    for key, known in (("password", True), ("username", True), ("token", False)):
        named = variable(secretKeyRef={"name": "store", "key": key})
        yield pytest.param(named, None if known else keys["store"], id=f"the key {key} of a secret")
    yield pytest.param(volume(secret={"secretName": "store"}), None, id="a secret")
    yield pytest.param(volume(secret={"secretName": "b"}), "Secret b", id="an unknown secret")
    projected = {"sources": [{"secret": {"name": "b"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}
    yield pytest.param(volume(projected=projected), "Secret b", id="an unknown secret in a projected volume")
    yield pytest.param(workload(imagePullSecrets=[{"name": "b"}]), "Secret b", id="an unknown pull secret")
    reads = workload(containers=[{"name": "a", "envFrom": [{"secretRef": {"name": "b"}}]}])
    yield pytest.param(reads, "Secret b", id="variables from an unknown secret")
    claim = {"claimName": "b"}
    yield pytest.param(volume(persistentVolumeClaim=claim), "PersistentVolumeClaim b", id="an unknown claim")
    yield pytest.param(workload(serviceAccountName="b"), "ServiceAccount b", id="an unknown account")
    yield pytest.param(workload(serviceAccountName="default"), None, id="the default account")
    yield pytest.param(workload(priorityClassName="core"), None, id="a class")
    yield pytest.param(workload(priorityClassName="b"), "PriorityClass b", id="an unknown class")
    yield pytest.param(workload(priorityClassName="system-node-critical"), None, id="a class of the system")
    role, account = {"kind": "ClusterRole", "name": "reader"}, {"kind": "ServiceAccount", "name": "reader"}
    bound = document("RoleBinding", roleRef=role, subjects=[{**account, "namespace": "tools"}])
    yield pytest.param(bound, None, id="a binding of an account in another namespace")
    lost = document("RoleBinding", roleRef=role, subjects=[account])
    yield pytest.param(lost, "ServiceAccount reader", id="a binding of an unknown account")
    unknown = document("RoleBinding", roleRef={**role, "kind": "Role"}, subjects=[])
    yield pytest.param(unknown, "Role reader", id="a binding to an unknown role")


@pytest.mark.parametrize(("resource", "missing"), list(cases()))
def test_p05_finds_an_object_or_a_key_that_nothing_creates(resource: dict[str, Any], missing: str | None) -> None:
    others = (
        SETTINGS,
        document("PriorityClass", "core", None),
        document("ClusterRole", "reader", None),
        document("ServiceAccount", "reader", "tools"),
    )
    title = f"{resource['kind']} shop/a"
    assert [each.path for each in found(resource, *others)] == ([f"{title} → {missing}"] if missing else [])


@pytest.mark.parametrize(
    ("resource", "missing"),
    [
        (variable(configMapKeyRef={"name": "b", "key": "level"}), "ConfigMap b"),
        (workload(containers=[{"name": "a", "envFrom": [{"configMapRef": {"name": "b"}}]}]), "ConfigMap b"),
        (document("RoleBinding", roleRef={"name": "b"}, subjects=[]), "Role b"),
        (document("RoleBinding", roleRef={}, subjects=[{"name": "b"}]), "ServiceAccount b"),
        (document("Database", spec={"cluster": {"name": "b"}}), "Cluster b"),
        (database(managed={"roles": [{"passwordSecret": {"name": "b"}}]}), "Secret b"),
        (database(plugins=[{"parameters": {"barmanObjectName": "b"}}]), "ObjectStore b"),
        (object_store(accessKeyId={"name": "store", "key": "id"}), "Secret store"),
        (object_store(secretAccessKey={"name": "store", "key": "id"}), "Secret store"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_p05_reads_the_references_of_each_kind_of_resource(resource: dict[str, Any], missing: str) -> None:
    assert [each.path for each in found(resource)] == [f"{resource['kind']} shop/a → {missing}"]


def test_p05_looks_for_an_object_in_the_namespace_of_the_resource() -> None:
    elsewhere = document("ConfigMap", namespace="tools", data={})
    (lost,) = found(volume(configMap={"name": "a"}), elsewhere)
    assert (lost.arithmetic, lost.field) == ("nothing creates the object", "configMap")


def test_p05_finds_a_resource_in_a_namespace_that_nothing_creates() -> None:
    (lost,) = found(SETTINGS, document("ConfigMap", namespace="kube-system"), namespaces=("tools",))
    assert (lost.path, lost.field) == ("ConfigMap shop/a → Namespace shop", "metadata.namespace")


def test_p05_names_the_missing_keys() -> None:
    items = [{"key": key, "path": key} for key in ("level", "b", "c")]
    (lost,) = found(volume(configMap={"name": "a", "items": items}), SETTINGS)
    assert lost.arithmetic == "ConfigMap a has no key b, c"
    (undeclared,) = found(volume(secret={"secretName": "b"}))
    assert undeclared.arithmetic == "no component of the namespace declares the secret"
