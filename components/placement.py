"""Placement of pods: spread over zones and hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.kubernetes.types import (
        Affinity,
        PodAffinityTerm,
        TopologySpreadConstraint,
        WeightedPodAffinityTerm,
    )

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def host_anti_affinity(selector: dict[str, str], *, required: bool) -> Affinity:
    """Place pods on different hosts: always if `required`, otherwise if possible.

    A quorum needs `required`, because losing two pods together would break it.
    """
    term: PodAffinityTerm = {"topologyKey": HOST, "labelSelector": {"matchLabels": selector}}
    if required:
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred: WeightedPodAffinityTerm = {"weight": 100, "podAffinityTerm": term}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}


def zone_spread(selector: dict[str, str]) -> TopologySpreadConstraint:
    """An even spread over zones: preferred, because a requirement would block a rollout when a zone is full or down."""
    return {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }
