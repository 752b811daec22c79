"""P05: resources that name an object which nothing creates."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.platform import Platform

REFERENCES = {
    "accessKeyId": "Secret",
    "barmanObjectName": "ObjectStore",
    "cluster": "Cluster",
    "configMap": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
    "imagePullSecrets": "Secret",
    "passwordSecret": "Secret",
    "persistentVolumeClaim": "PersistentVolumeClaim",
    "priorityClassName": "PriorityClass",
    "roleRef": "Role",
    "secret": "Secret",
    "secretAccessKey": "Secret",
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "serviceAccountName": "ServiceAccount",
    "subjects": "ServiceAccount",
}
"""Field of a resource → the kind of the named object. If the reference has a `kind`, that kind counts."""
NAMES = ("secretName", "claimName", "name")
"""Fields of a reference. One of them contains the name."""
FREE = {"annotations", "data", "labels", "matchLabels", "nodeSelector", "selector"}
"""Fields whose keys are chosen freely. None of these keys is a reference."""
BUILT_IN = {
    ("ConfigMap", "kube-root-ca.crt"),
    ("Namespace", "default"),
    ("Namespace", "kube-system"),
    ("PriorityClass", "system-cluster-critical"),
    ("PriorityClass", "system-node-critical"),
    ("ServiceAccount", "default"),
}
"""Kind and name of the objects that Kubernetes itself creates."""


class Reference(NamedTuple):
    """A named object, and the keys that the resource reads from it."""

    field: str
    kind: str
    name: str
    namespace: str
    keys: tuple[str, ...]


def named_objects_exist(platform: Platform) -> Iterator[Breach | None]:
    """Check that every named namespace, object and key exists: the platform renders it or declares it as a secret."""
    found = rendered(platform)
    objects = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in found.everything
    }
    keys = {place: {*each.get("data", {}), *each.get("binaryData", {})} for place, each in objects.items()}
    keys.update(_secrets(platform))
    for (kind, namespace, name), resource in objects.items():
        path = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        inside = [Reference("metadata.namespace", "Namespace", namespace, "", ())] if namespace else []
        for reference in dict.fromkeys((*inside, *_references(resource, namespace))):
            yield _missing(path, reference, keys)


def _secrets(platform: Platform) -> Iterator[tuple[tuple[str, str, str], set[str]]]:
    """The Secret of each declared secret, with its keys. Pulumi creates it in the namespace of each reader."""
    merged = {secret.name: secret for secret in platform.secrets}
    for component in platform.components:
        for secret in component.secrets:
            yield ("Secret", component.namespace, secret.name), {*merged[secret.name].keys, "username"}


def _references(value: Any, namespace: str) -> Iterator[Reference]:
    """The references anywhere inside a part of a resource."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each, namespace)
    for field, inner in value.items() if isinstance(value, dict) else ():
        if field in REFERENCES:
            for each in inner if isinstance(inner, list) else [inner]:
                yield from _reference(field, each, namespace)
        if field not in FREE:
            yield from _references(inner, namespace)


def _reference(field: str, value: Any, namespace: str) -> Iterator[Reference]:
    """The reference in a field. Omits an `optional` object, because a pod starts without it."""
    named: Mapping[str, Any] = value if isinstance(value, dict) else {"name": value}
    name = next((named[each] for each in NAMES if each in named), None)
    if name and not named.get("optional"):
        read = (*(item["key"] for item in named.get("items", ())), *([named["key"]] if "key" in named else ()))
        kind = named.get("kind", REFERENCES[field])
        yield Reference(field, kind, name, named.get("namespace", namespace), read)


def _missing(path: str, named: Reference, known: Mapping[tuple[str, str, str], Collection[str]]) -> Breach | None:
    field, kind, name, namespace, read = named
    if (kind, name) in BUILT_IN:
        return None
    # A cluster-scoped object has no namespace.
    keys = known.get((kind, namespace, name), known.get((kind, "", name)))
    absent = [key for key in read if keys is not None and key not in keys]
    missing = "no component of the namespace declares the secret" if kind == "Secret" else "nothing creates the object"
    text = f"{kind} {name} has no key {', '.join(absent)}" if absent else missing
    return Breach(f"{path} → {kind} {name}", text, field) if keys is None or absent else None


RULES = (
    Rule(
        id="P05",
        title="every object that a resource names exists",
        severity="error",
        rationale="kubelet never starts a pod that names a missing ConfigMap, Secret key or claim",
        source="Kubernetes, Configure a Pod to Use a ConfigMap; Pod Priority and Preemption",
        violates="a Secret has only the key token, and a pod reads its key password",
        holds="the same pod, and the component declares the key password of the secret",
        check=named_objects_exist,
    ),
)
