"""Services and their specifications. `service` adds the selector to a specification that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta, Service, ServicePort, ServiceSpec


def to_port(name: str, port: int, app_protocol: str | None = None) -> ServicePort:
    """A Service port whose target is the container's port of the same name."""
    service_port: ServicePort = {"name": name, "port": port, "targetPort": name}
    return {**service_port, "appProtocol": app_protocol} if app_protocol else service_port


def tcp(port: int) -> ServiceSpec:
    """A Service with one port."""
    return {"ports": [{"name": "tcp", "port": port, "targetPort": port}]}


def each_pod(port: int) -> ServiceSpec:
    """A headless Service with the address of each pod, even before the pod is ready: members must find each other."""
    return {**tcp(port), "clusterIP": "None", "publishNotReadyAddresses": True}


def each_ready_pod(*ports: ServicePort) -> ServiceSpec:
    """A headless Service with the address of each ready pod, so that a client can balance its calls over the pods."""
    return {"clusterIP": "None", "ports": list(ports)}


def service(metadata: ObjectMeta, selector: dict[str, str], spec: ServiceSpec) -> Service:
    """The Service with this `spec`. It selects pods by `selector`, unless `spec` contains a selector."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "selector": selector, **spec},
    }
