"""Labels and annotations that add the mesh's proxy to a pod and set its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.node import Sizing

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta

__all__ = ["SIZE_ANNOTATION"]

INJECT_LABEL = "sidecar.istio.io/inject"
SIZE_ANNOTATION = "sidecar.istio.io/proxy"
INBOUND_PORTS_ANNOTATION = "traffic.sidecar.istio.io/includeInboundPorts"


def mesh_member(proxy: Sizing | None, *, inbound: bool = True) -> ObjectMeta:
    """Labels and annotations that make pods members of the mesh. Empty without `proxy`.

    Without `inbound`, only outgoing connections pass through the proxy.
    """
    if proxy is None:
        return {}
    annotations = {
        f"{SIZE_ANNOTATION}CPU": str(proxy.cpu_request),
        f"{SIZE_ANNOTATION}CPULimit": str(proxy.cpu_limit),
        f"{SIZE_ANNOTATION}Memory": str(proxy.memory_request),
        f"{SIZE_ANNOTATION}MemoryLimit": str(proxy.memory_limit),
    }
    if not inbound:
        annotations[INBOUND_PORTS_ANNOTATION] = ""
    return {"labels": {INJECT_LABEL: "true"}, "annotations": annotations}
