"""Labels and annotations that add the mesh's proxy to a pod and set its size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from components.node import Sizing

if TYPE_CHECKING:
    from components.kubernetes.types import ObjectMeta

__all__ = ["INJECT_LABEL", "SIZE_ANNOTATION", "STATS_PORT"]

STATS_PORT = 15090
"""Port at which the proxy serves Envoy's statistics. Istio captures no connection to it."""
STATS_PATH = "/stats/prometheus"
STATISTICS = {
    "outlier_detection.ejections_active": "envoy_cluster_outlier_detection_ejections_active",
    "upstream_rq_pending_overflow": "envoy_cluster_upstream_rq_pending_overflow",
    "upstream_cx_overflow": "envoy_cluster_upstream_cx_overflow",
}
"""Envoy's statistic → its name as a metric, for the policies that the mesh enforces. Istio's proxies export none of
them by default. Source: `docs/root/configuration/upstream/cluster_manager/cluster_stats.rst`, read on 2026-11-30."""
CONFIG_ANNOTATION = "proxy.istio.io/config"
_CONFIG = json.dumps({"proxyStatsMatcher": {"inclusionSuffixes": sorted(STATISTICS)}})

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
        CONFIG_ANNOTATION: _CONFIG,
        f"{SIZE_ANNOTATION}CPU": str(proxy.cpu_request),
        f"{SIZE_ANNOTATION}CPULimit": str(proxy.cpu_limit),
        f"{SIZE_ANNOTATION}Memory": str(proxy.memory_request),
        f"{SIZE_ANNOTATION}MemoryLimit": str(proxy.memory_limit),
    }
    if not inbound:
        annotations[INBOUND_PORTS_ANNOTATION] = ""
    return {"labels": {INJECT_LABEL: "true"}, "annotations": annotations}
