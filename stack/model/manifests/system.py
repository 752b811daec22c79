"""The manifests of a system, joined: Services, autoscalers and policies with the workloads to which they apply."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from voice_policies import Fault, InvalidInputError, errors_of, faults_of

from components.declaration import Location
from stack.model.manifests import references
from stack.model.manifests.policies import NetworkPolicySpec, VirtualServiceSpec
from stack.model.manifests.read import Manifest, read_manifests
from stack.model.manifests.references import Address
from stack.model.manifests.resources import (
    Autoscaler,
    Budget,
    ConfigMapManifest,
    Container,
    Metadata,
    Part,
    PodTemplate,
    Scalar,
    SecretManifest,
    Selector,
    ServiceSpec,
    WorkloadSpec,
)

__all__ = ["Item", "Reference", "System", "Workload", "load_system"]

Model = TypeVar("Model", bound=Part)
Identity = tuple[str, str, str, str]
TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
"""Kind that has pods → the path of its pod template."""
PARTS: Mapping[str, tuple[str, ...]] = {"ConfigMap": (), "Secret": (), "Namespace": ("metadata",)}
"""Kind → the path of the part that the audit reads. For other kinds this part is `spec`."""
PLURAL_PODS = frozenset({"Deployment", "StatefulSet", "ReplicaSet"})
"""Kinds with a number of replicas."""


@dataclass(frozen=True)
class Named:
    """A resource with its kind, namespace and name."""

    manifest: Manifest

    @property
    def name(self) -> str:
        """Name of the resource."""
        return self.manifest.name

    @property
    def namespace(self) -> str:
        """Namespace of the resource."""
        return self.manifest.namespace

    @property
    def title(self) -> str:
        """The kind, the namespace and the name. Without the namespace if it is `default`."""
        return f"{self.manifest.kind} {self.manifest.title}"


@dataclass(frozen=True)
class Item(Named, Generic[Model]):
    """A resource, with the part that the audit reads."""

    spec: Model

    def at(self, *path: str | int) -> Location:
        """The line of a field below `spec`."""
        return self.manifest.at("spec", *path)


@dataclass(frozen=True)
class Workload(Named):
    """A resource that has pods."""

    template: PodTemplate
    spec: WorkloadSpec
    """Empty if the kind has no number of replicas."""

    @property
    def kind(self) -> str:
        """Kind of the resource."""
        return self.manifest.kind

    @property
    def labels(self) -> dict[str, Scalar]:
        """The labels of the pods."""
        return self.template.metadata.labels

    @property
    def containers(self) -> tuple[tuple[str, int, Container], ...]:
        """Every container, with the name of its list and its index in that list."""
        spec = self.template.spec
        lists = {"containers": spec.containers, "initContainers": spec.init_containers}
        return tuple((name, index, each) for name, found in lists.items() for index, each in enumerate(found))

    @property
    def ports(self) -> dict[str | int, int]:
        """Name or number of a declared port of the containers → its number."""
        declared = [port for _, _, container in self.containers for port in container.ports]
        named: dict[str | int, int] = {port.name: port.container_port for port in declared if port.name}
        numbered: dict[str | int, int] = {port.container_port: port.container_port for port in declared}
        return {**named, **numbered}

    def at(self, *path: str | int) -> Location:
        """The line of a field of the pod's spec."""
        inner = (*TEMPLATES[self.kind], "spec")
        return self.manifest.at(*inner, *path)


@dataclass(frozen=True)
class Reference:
    """A host that a workload names. `service` is the Service with that name, or `None` if no manifest declares it."""

    workload: Workload
    address: Address
    service: Item[ServiceSpec] | None


@dataclass(frozen=True)
class System:
    """All parts of the manifests that the audit reads."""

    source: str
    manifests: tuple[Manifest, ...]
    workloads: tuple[Workload, ...]
    services: tuple[Item[ServiceSpec], ...]
    autoscalers: tuple[Item[Autoscaler], ...]
    budgets: tuple[Item[Budget], ...]
    network_policies: tuple[Item[NetworkPolicySpec], ...]
    virtual_services: tuple[Item[VirtualServiceSpec], ...]
    secrets: tuple[Item[SecretManifest], ...]
    config_maps: tuple[Item[ConfigMapManifest], ...]
    namespace_manifests: tuple[Item[Metadata], ...]

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """The namespaces of all manifests."""
        return frozenset(manifest.namespace for manifest in self.manifests)

    @cached_property
    def namespace_labels(self) -> dict[str, dict[str, Scalar]]:
        """The labels of the namespaces that have a manifest."""
        return {each.name: each.spec.labels for each in self.namespace_manifests}

    def service(self, host: str, namespace: str) -> Item[ServiceSpec] | None:
        """The Service that pods of a namespace reach under a host name. `None` if no manifest declares it.

        The host may begin with the name of a StatefulSet's pod: `store-0.store` means the Service `store`.
        """
        name = re.sub(r"^[a-z][-a-z0-9]*-\d+\.", "", host)
        return self._service_by_host.get(name, {}).get(namespace)

    @cached_property
    def _service_by_host(self) -> dict[str, dict[str, Item[ServiceSpec]]]:
        """Host name → namespace of the pod that uses the name → Service."""
        found: dict[str, dict[str, Item[ServiceSpec]]] = {}
        for service in self.services:
            qualified = f"{service.name}.{service.namespace}"
            for name in (qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local"):
                found[name] = dict.fromkeys(self.namespaces, service)
            found.setdefault(service.name, {})[service.namespace] = service
        return found

    def pods_of(self, service: Item[ServiceSpec]) -> tuple[Workload, ...]:
        """The workloads whose pods a Service selects.

        Empty for a Service without a selector, because the endpoints of such a Service are managed elsewhere.
        """
        return self._pods_by_service[service.manifest.identity]

    @cached_property
    def _pods_by_service(self) -> dict[Identity, tuple[Workload, ...]]:
        return {
            service.manifest.identity: self.selected(Selector(match_labels=service.spec.selector), service.namespace)
            if service.spec.selector
            else ()
            for service in self.services
        }

    @cached_property
    def references(self) -> tuple[Reference, ...]:
        """Every host and port that a workload names, without duplicates and without the workload's own Services."""
        found: dict[tuple[object, ...], Reference] = {}
        own_of: dict[Identity, set[Identity]] = defaultdict(set)
        for identity, pods in self._pods_by_service.items():
            for each in pods:
                own_of[each.manifest.identity].add(identity)
        for workload in self.workloads:
            own = own_of[workload.manifest.identity]
            for address in self._addresses(workload):
                service = self.service(address.host, workload.namespace)
                if service is None or service.manifest.identity not in own:
                    key = (workload.manifest.identity, address.host, address.port)
                    found.setdefault(key, Reference(workload, address, service))
        return tuple(found.values())

    def _addresses(self, workload: Workload) -> Iterator[Address]:
        for place, index, container in workload.containers:
            values = references.environment(container, self._from_config_maps(workload, container))
            lines = {variable.name: number for number, variable in enumerate(container.env)}
            for name, value in values.items():
                path = (place, index, "env", lines[name]) if name in lines else (place, index, "envFrom")
                for host, port in references.hosts_of_variable(name, value, values):
                    yield Address(host, port, workload.at(*path), name)
            for field in ("command", "args"):
                for number, text in enumerate(getattr(container, field)):
                    for host, port in references.hosts_of_argument(str(text), values):
                        yield Address(host, port, workload.at(place, index, field, number), field)

    def _from_config_maps(self, workload: Workload, container: Container) -> dict[str, str]:
        """The variables that a container takes from whole ConfigMaps (`envFrom`)."""
        maps = {(each.namespace, each.name): each.spec.data for each in self.config_maps}
        return {
            f"{source.prefix}{key}": str(value)
            for source in container.env_from
            if source.config_map_ref
            for key, value in maps.get((workload.namespace, source.config_map_ref.name), {}).items()
        }

    def count(self, workload: Workload) -> int | None:
        """Minimum number of a workload's pods. `None` if its kind has no number of replicas."""
        autoscaler = self.autoscaler_of(workload)
        if workload.kind not in PLURAL_PODS:
            return None
        return (
            autoscaler.spec.min_replicas
            if autoscaler
            else 1
            if workload.spec.replicas is None
            else workload.spec.replicas
        )

    def is_complete(self, namespace: str) -> bool:
        """True if the manifests show every pod and Service of the namespace.

        False if the namespace has a custom resource, from which an operator may create pods and Services.
        """
        return namespace not in self._namespaces_of_operators

    @cached_property
    def _namespaces_of_operators(self) -> frozenset[str]:
        return frozenset(each.namespace for each in self.manifests if _is_custom(each.identity[0]))

    def selected(self, selector: Selector | None, namespace: str) -> tuple[Workload, ...]:
        """The workloads of a namespace whose pods a label selector selects. Empty without a selector."""
        if selector is None:
            return ()
        label = next(iter(selector.match_labels.items()), None)
        candidates = self._by_label.get((namespace, label), ())
        return tuple(workload for workload in candidates if selector.matches(workload.labels))

    @cached_property
    def _by_label(self) -> dict[tuple[str, tuple[str, Scalar] | None], list[Workload]]:
        """Namespace and label → workloads, so that a selector checks only a few workloads.

        Namespace and `None` → all workloads of the namespace.
        """
        found: dict[tuple[str, tuple[str, Scalar] | None], list[Workload]] = defaultdict(list)
        for workload in self.workloads:
            for label in (None, *workload.labels.items()):
                found[workload.namespace, label].append(workload)
        return found

    def policies_of(self, workload: Workload) -> list[Item[NetworkPolicySpec]]:
        """The NetworkPolicies that select a workload's pods."""
        return self._policies_by_workload.get(workload.manifest.identity, [])

    @cached_property
    def _policies_by_workload(self) -> dict[Identity, list[Item[NetworkPolicySpec]]]:
        found: dict[Identity, list[Item[NetworkPolicySpec]]] = defaultdict(list)
        for policy in self.network_policies:
            for workload in self.selected(policy.spec.pod_selector, policy.namespace):
                found[workload.manifest.identity].append(policy)
        return found

    def autoscaler_of(self, workload: Workload) -> Item[Autoscaler] | None:
        """The autoscaler that sets a workload's number of replicas. `None` if no manifest declares one."""
        return self._autoscalers.get((workload.kind, workload.namespace, workload.name))

    def scaled(self, autoscaler: Item[Autoscaler]) -> Workload | None:
        """The workload that an autoscaler scales. `None` if no manifest declares the workload."""
        return self._workloads_by_place.get(_scaled_place(autoscaler))

    @cached_property
    def _workloads_by_place(self) -> dict[tuple[str, str, str], Workload]:
        return {(each.kind, each.namespace, each.name): each for each in self.workloads}

    @cached_property
    def _autoscalers(self) -> dict[tuple[str, str, str], Item[Autoscaler]]:
        return {_scaled_place(autoscaler): autoscaler for autoscaler in self.autoscalers}


def _is_custom(group: str) -> bool:
    """True for an API group of an operator. Kubernetes' own groups have no dot or end in `k8s.io`.

    Istio's groups do not count, because their resources create no pods.
    """
    return "." in group and not group.endswith((".k8s.io", ".istio.io"))


def _scaled_place(autoscaler: Item[Autoscaler]) -> tuple[str, str, str]:
    target = autoscaler.spec.scale_target_ref
    return target.kind, autoscaler.namespace, target.name


def load_system(path: Path) -> System:
    """The system that a file or directory of manifests describes.

    Raises one `InvalidInputError` that lists every document that cannot be read. If all can be read, the error lists
    every faulty field, or says that there is no Service.
    """
    manifests = read_manifests(path)
    reader = _Reader(manifests)
    system = System(
        source=str(path),
        manifests=manifests,
        workloads=tuple(reader.workloads()),
        services=tuple(reader.items("Service", ServiceSpec, "")),
        autoscalers=tuple(reader.items("HorizontalPodAutoscaler", Autoscaler, "autoscaling")),
        budgets=tuple(reader.items("PodDisruptionBudget", Budget, "policy")),
        network_policies=tuple(reader.items("NetworkPolicy", NetworkPolicySpec, "networking.k8s.io")),
        virtual_services=tuple(reader.items("VirtualService", VirtualServiceSpec, "networking.istio.io")),
        secrets=tuple(reader.items("Secret", SecretManifest, "")),
        config_maps=tuple(reader.items("ConfigMap", ConfigMapManifest, "")),
        namespace_manifests=tuple(reader.items("Namespace", Metadata, "")),
    )
    if not reader.faults and not system.services:
        reader.faults.append(Fault("", "has no Service", "expected at least one manifest of the kind Service"))
    if reader.faults:
        raise InvalidInputError(str(path), reader.faults)
    return system


class _Reader:
    """Reads the typed parts of resources and collects their faults."""

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self.manifests = tuple(manifests)
        self.faults: list[Fault] = []

    def items(self, kind: str, model: type[Model], group: str) -> Iterator[Item[Model]]:
        """The resources of a kind and API group, each with the part that the audit reads."""
        for manifest in self.manifests:
            if (manifest.kind, manifest.identity[0]) != (kind, group):
                continue
            if (spec := self._part(manifest, model, PARTS.get(kind, ("spec",)))) is not None:
                yield Item(manifest, spec)

    def workloads(self) -> Iterator[Workload]:
        """The resources that have pods."""
        for manifest in self.manifests:
            path = None if _is_custom(manifest.identity[0]) else TEMPLATES.get(manifest.kind)
            if path is None or (template := self._part(manifest, PodTemplate, path)) is None:
                continue
            spec = self._part(manifest, WorkloadSpec, ("spec",)) if manifest.kind in PLURAL_PODS else WorkloadSpec()
            if spec is not None:
                yield Workload(manifest, template, spec)

    def _part(self, manifest: Manifest, model: type[Model], path: tuple[str, ...]) -> Model | None:
        value: Any = manifest.content
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        try:
            return model.model_validate({} if value is None else value)
        except ValidationError as error:
            places = [(*path, *found["loc"]) for found in errors_of(error)]
            for place, fault in zip(places, faults_of(error), strict=True):
                prefix = ".".join((manifest.kind, manifest.title, *path))
                self.faults.append(
                    Fault(f"{prefix}.{fault.path}", fault.value, fault.accepted, str(manifest.at(*place)))
                )
            return None
