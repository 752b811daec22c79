"""Where pods are put: spread over zones and hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import Affinity, TopologySpreadConstraint

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def alone_on_its_host(selector: dict[str, str]) -> Affinity:
    """Never two on one host: for quorums, which two losses at once would break."""
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": HOST, "labelSelector": {"matchLabels": selector}}
            ]
        }
    }


def host_spread(selector: dict[str, str]) -> Affinity:
    """On different hosts where there is room."""
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": {"topologyKey": HOST, "labelSelector": {"matchLabels": selector}}}
            ]
        }
    }


def zone_spread(selector: dict[str, str]) -> TopologySpreadConstraint:
    """Even over zones. Hard would block a rollout when a zone is full or gone, so it is a strong wish."""
    return {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
        "matchLabelKeys": ["pod-template-hash"],
    }
