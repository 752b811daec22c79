"""Registers the components with Pulumi as a tree: each component, with its Kubernetes resources below it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import pulumi
import pulumi_kubernetes

from components.component import Component
from components.edge.gateway import ApisixGateway
from components.namespace import NamespaceGuard
from components.secret_keys import DOCKER_CONFIG, SecretKeys
from stack.deploy.configuration import Configuration, SecretValues
from stack.deploy.data_safety import bears_data, data_namespaces
from stack.deploy.operators import operator_of
from stack.model.platform import Platform

if TYPE_CHECKING:
    from components.component import Resource

__all__ = ["resource_type"]

WORKLOADS = frozenset({"DaemonSet", "Deployment", "Job", "StatefulSet"})
"""Kinds whose pods Pulumi waits for. If the pods started before their dependencies, the wait would time out."""
FORCE = {"pulumi.com/patchForce": "true"}
"""Overwrite declared fields that somebody changed by hand. Without this annotation the update would fail."""
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}
"""With this annotation Pulumi does not wait for a claim, or for a Service without a load balancer.

Pulumi waits for the workloads, and those become ready only with their claims. For such a Service, Pulumi would wait for
the pods and then 10 s more, in each tier."""
TEMPLATE_SIZE = "spec.volumeClaimTemplates[*].spec.resources"
"""Pulumi ignores changes of this immutable field. To grow a volume, Pulumi changes its claim."""
RELOAD_LABEL = "cnpg.io/reload"
"""Label with which CloudNativePG sets a role's password as soon as the Secret changes."""
SLACK = 60
"""Seconds that Pulumi waits for a Job after the Job's own deadline. Pulumi's default is 10 minutes in total."""


@dataclass(frozen=True, slots=True)
class Target:
    """Arguments that all registered resources share."""

    provider: pulumi.ProviderResource
    secrets: SecretValues
    kept_namespaces: frozenset[str] | None
    """Namespaces that hold data. `None` if nothing is protected."""
    namespaces: dict[str, pulumi.Resource] = field(default_factory=dict)
    """Registered namespaces by name."""
    made_secrets: set[tuple[str, str]] = field(default_factory=set)
    """Namespace and name of each registered Secret."""
    gates: list[pulumi.Resource] = field(default_factory=list)
    """One Pulumi resource for each registered tier. It exists when the whole tier is ready."""

    def keeps(self, resource: Mapping[str, Any]) -> bool | None:
        """True if Pulumi must not replace or delete the resource, even after the program no longer declares it.

        `None` means no.
        """
        if self.kept_namespaces is None:
            return None
        is_namespace = resource["kind"] == "Namespace" and resource["metadata"]["name"] in self.kept_namespaces
        return True if is_namespace or bears_data(resource) else None


def register(platform: Platform, configuration: Configuration) -> list[ComponentTree]:
    """Register every component, tier by tier.

    Each tier has a gate: one Pulumi resource that exists when the whole tier is ready. Otherwise each resource would
    depend on every resource of the tiers below. In prod these are 10,000 dependencies, and Pulumi searches
    each for cycles. If the profile protects data, Pulumi protects and retains resources that hold data. Then
    `pulumi destroy` fails before the first deletion.
    """
    provider = pulumi_kubernetes.Provider(
        "cluster",
        kubeconfig=configuration.kubeconfig and pulumi.Output.secret(configuration.kubeconfig),
        context=configuration.context,
        # Without an identifier Pulumi would replace everything as soon as the cluster's address changes.
        cluster_identifier=configuration.cluster_identifier,
        # Update a changed ConfigMap in place. By default Pulumi replaces the object and restarts every pod that mounts
        # it.
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )
    resources = (resource for _, found in platform.resources for resource in found)
    target = Target(
        provider,
        configuration.secrets,
        frozenset(data_namespaces(resources)) if platform.environment.profile.protects_data else None,
    )
    trees: list[ComponentTree] = []
    for rank, tier in groupby(platform.resources, key=lambda found: _rank(found[0])):
        made = [ComponentTree(component, resources, target) for component, resources in tier]
        awaited = [resource for tree in made for resource in tree.awaited]
        opts = pulumi.ResourceOptions(depends_on=[*target.gates[-1:], *awaited])
        target.gates.append(pulumi.Stash(f"tier-{rank}", input="ready", opts=opts))
        trees += made
    if platform.environment.profile.protects_data:
        # Pulumi first deletes resources that no other resource depends on, and would find the protected ones only
        # later. This protected resource comes first, so Pulumi deletes nothing.
        opts = pulumi.ResourceOptions(depends_on=[*trees, *target.gates[-1:]], protect=True)
        pulumi.Stash("destruction", input="refused", opts=opts)
    return trees


def _rank(component: Component) -> str:
    """The number of the component's folder. Components with the same number do not depend on each other."""
    return component.folder.partition("-")[0]


class ComponentTree(pulumi.ComponentResource):
    """A component with its Kubernetes resources and its secrets below it.

    Logical names are `namespace/name`, which is unique for each kind. They are part of a resource's identity, so a
    changed name needs an alias. Resources that must become ready wait for the tier below. Pulumi creates the other
    resources earlier, while the tier below becomes ready.
    """

    def __init__(self, component: Component, resources: Iterable[Resource], target: Target) -> None:
        super().__init__(
            f"voice:components:{component.kind}",
            f"{component.namespace}/{component.name}",
            opts=pulumi.ResourceOptions(providers=[target.provider]),
        )
        self.component = component
        self._target = target
        self._made: list[tuple[Mapping[str, Any], pulumi.CustomResource]] = []
        for resource in resources:
            self._made.append((resource, self._make(resource)))
        for secret in component.secrets:
            place = (component.namespace, secret.name)
            if place in target.made_secrets:
                continue  # two stores share the user of their exporter: one Secret, which the first store registers
            target.made_secrets.add(place)
            made = _secret(component, secret, target.secrets[secret.name])
            _register(made, pulumi.ResourceOptions(parent=self, depends_on=list(self._dependencies(made))))
        self.register_outputs({})

    @property
    def awaited(self) -> list[pulumi.CustomResource]:
        """The resources that the next tier waits for.

        These are the resources that report readiness. If there is none, they are all resources.
        """
        awaited = [made for resource, made in self._made if _is_awaited(resource)]
        return awaited or [made for _, made in self._made]

    @property
    def services(self) -> list[pulumi_kubernetes.core.v1.Service]:
        """The Services of the component."""
        return [made for _, made in self._made if isinstance(made, pulumi_kubernetes.core.v1.Service)]

    def _make(self, resource: Mapping[str, Any]) -> pulumi.CustomResource:
        target, metadata = self._target, resource["metadata"]
        keep = target.keeps(resource)
        options = pulumi.ResourceOptions(
            parent=self,
            # Children inherit the provider from their parent, but not dependencies.
            depends_on=list(self._dependencies(resource)),
            protect=keep,
            retain_on_delete=keep,
            custom_timeouts=_timeouts(resource),
            ignore_changes=[TEMPLATE_SIZE] if resource["kind"] == "StatefulSet" else None,
        )
        made = _register(resource, options)
        if resource["kind"] == "Namespace":
            target.namespaces[metadata["name"]] = made
        return made

    def _dependencies(self, resource: Mapping[str, Any]) -> Iterator[pulumi.Resource]:
        gates, namespaces = self._target.gates, self._target.namespaces
        if needed := gates[-1:] if _is_awaited(resource) else gates[-2:-1]:
            # A gate is ready after the namespaces, so no dependency on a namespace is needed. The workloads of a tier
            # and the other objects of the next tier wait for the same gate. Pulumi creates them in the order of
            # registration, so the workloads come first.
            yield from needed
        elif namespace := namespaces.get(resource["metadata"].get("namespace")):
            yield namespace
        if resource["kind"] == "StatefulSet":
            # Claims come first. Otherwise the StatefulSet's controller creates them, and Pulumi finds the name taken.
            yield from (made for former, made in self._made if former["kind"] == "PersistentVolumeClaim")


def _is_awaited(resource: Mapping[str, Any]) -> bool:
    """True for workloads, load balancers and custom resources, because they become ready after their creation."""
    is_custom = operator_of(resource["apiVersion"]) is not None
    return resource["kind"] in WORKLOADS or _needs_balancer(resource) or is_custom


def _needs_balancer(resource: Mapping[str, Any]) -> bool:
    return bool(resource["kind"] == "Service" and resource["spec"].get("type") == "LoadBalancer")


def _timeouts(resource: Mapping[str, Any]) -> pulumi.CustomTimeouts | None:
    if resource["kind"] != "Job":
        return None
    longest = f"{resource['spec']['activeDeadlineSeconds'] + SLACK}s"
    return pulumi.CustomTimeouts(create=longest, update=longest)


def _register(resource: Mapping[str, Any], options: pulumi.ResourceOptions) -> pulumi.CustomResource:
    metadata = resource["metadata"]
    name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    waits = _needs_balancer(resource) or resource["kind"] not in {"PersistentVolumeClaim", "Service"}
    annotations = {**metadata.get("annotations", {}), **FORCE, **({} if waits else SKIP_AWAIT)}
    annotated = {**resource, "metadata": {**metadata, "annotations": annotations}}
    properties = {_snake_case(key): value for key, value in annotated.items()}
    return resource_type(resource["apiVersion"], resource["kind"])(name, **properties, opts=options)


def resource_type(api_version: str, kind: str) -> type[pulumi.CustomResource]:
    """The class of a kind: `networking.k8s.io/v1` is in module `networking.v1`, and `v1` in `core.v1`."""
    group, _, version = api_version.rpartition("/")
    if operator_of(api_version):
        return pulumi_kubernetes.apiextensions.CustomResource
    module = import_module(f"pulumi_kubernetes.{group.partition('.')[0] or 'core'}.{version}")
    return cast("type[pulumi.CustomResource]", getattr(module, kind))


def _snake_case(key: str) -> str:
    """A property in the spelling of Pulumi's Python classes. Nested fields keep the API's own names."""
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", key)


def _secret(component: Component, secret: SecretKeys, values: Mapping[str, str]) -> dict[str, Any]:
    """The Secret, which no rendered file holds. Pulumi's class `Secret` keeps the data secret in state and output."""
    data, labels, kind = {key: values[key] for key in secret.keys}, component.labels, "Opaque"
    if secret.username:
        data["username"] = secret.username
        labels, kind = {**labels, RELOAD_LABEL: "true"}, "kubernetes.io/basic-auth"
    elif DOCKER_CONFIG in data:
        data, kind = {f".{DOCKER_CONFIG}": data[DOCKER_CONFIG]}, f"kubernetes.io/{DOCKER_CONFIG}"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret.name, "namespace": component.namespace, "labels": labels},
        "type": kind,
        "data": {key: b64encode(value.encode()).decode() for key, value in data.items()},
    }


def outputs(platform: Platform, trees: Iterable[ComponentTree]) -> dict[str, Any]:
    """The outputs of the stack: digests of the policy bundles, namespaces, addresses of services and gateway."""
    services, site = platform.microservices, platform.site
    return {
        "gateway_addresses": {
            f"{gateway.name}.{gateway.namespace}": {
                "url": gateway.address,
                **_gateway_address(service),
            }
            for tree in trees
            for service in tree.services
            if isinstance(gateway := tree.component, ApisixGateway)
        },
        "policy_digests": {service.name: service.digest for service in services},
        "namespaces": sorted(guard.namespace for guard in platform.components if isinstance(guard, NamespaceGuard)),
        "service_addresses": {
            service.name: {
                "http": f"{site.http_host(service.service)}:{service.service.http_port}",
                "grpc": f"{site.grpc_host(service.service)}:{service.service.grpc_port}",
            }
            for service in services
        },
    }


def _gateway_address(service: pulumi_kubernetes.core.v1.Service) -> dict[str, pulumi.Output[Any]]:
    """The address of the gateway. If there is a load balancer, the DNS name in `url` must point to it."""
    return {
        "load_balancer": service.status.apply(_load_balancer_addresses),
        "node_ports": service.spec.apply(lambda spec: {port.name: port.node_port for port in spec.ports or ()}),
    }


def _load_balancer_addresses(status: Any) -> list[str]:
    """Addresses or names of the load balancer, once the provider has assigned them. Empty without a load balancer."""
    balancer = status and status.load_balancer
    return [point.ip or point.hostname for point in (balancer and balancer.ingress) or ()]
