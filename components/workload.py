"""What every pod has: spread over zones and nodes, time to stop, no API token, bounded temporary space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from voice_policies import Duration

from components.container import TEMPORARY_SIZE, TEMPORARY_VOLUME, pod_security
from components.node import Replicas
from components.secret_keys import SecretKeys

if TYPE_CHECKING:
    from components.kubernetes.types import (
        Affinity,
        Container,
        Deployment,
        DeploymentSpec,
        Lifecycle,
        ObjectMeta,
        PodSpec,
        TopologySpreadConstraint,
        Volume,
        VolumeMount,
    )

PRE_STOP = Duration("5s")
"""Sleep before SIGTERM, so that endpoints are withdrawn first (kube-proxy and gateways take a few seconds)."""
SHUTDOWN_MARGIN = Duration("5s")
"""Left for flushing telemetry after the last request."""
MIN_READY_SECONDS = 5
PROGRESS_DEADLINE_SECONDS = 180
"""Three times the longest start: a rollout that has not moved by then has failed."""
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


def deployment(
    metadata: ObjectMeta, template: ObjectMeta, selector: dict[str, str], pod: PodSpec, replicas: Replicas
) -> Deployment:
    """A rollout that never takes a pod away before its successor is ready. A range is the autoscaler's to count."""
    spec: DeploymentSpec = {
        "minReadySeconds": MIN_READY_SECONDS,
        "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
        "revisionHistoryLimit": 5,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": selector},
        "template": {"metadata": template, "spec": pod},
    }
    if replicas.fixed:
        spec["replicas"] = replicas.min
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def grace_seconds(longest_request: Duration) -> int:
    """Termination grace that holds the pre-stop sleep, the longest request in flight and a margin."""
    return (PRE_STOP + longest_request + SHUTDOWN_MARGIN).whole_seconds()


def pre_stop(sleep: Duration = PRE_STOP) -> Lifecycle:
    """The native sleep: no shell in the image is needed."""
    return {"preStop": {"sleep": {"seconds": sleep.whole_seconds()}}}


def secret_mounts(secrets: Iterable[SecretKeys]) -> list[VolumeMount]:
    """A directory of files for each secret."""
    return [{"name": secret.name, "mountPath": secret.path, "readOnly": True} for secret in secrets]


def secret_volumes(secrets: Iterable[SecretKeys]) -> list[Volume]:
    """Only the named keys of each secret, readable by the pod's group."""
    return [
        {
            "name": secret.name,
            "secret": {
                "secretName": secret.name,
                "defaultMode": 0o440,
                "items": [{"key": key, "path": key} for key in secret.keys],
            },
        }
        for secret in secrets
    ]


def pod_spec(
    account: str, container: Container, volumes: list[Volume], selector: dict[str, str], longest_request: Duration
) -> PodSpec:
    """The hardened pod around one container."""
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": grace_seconds(longest_request),
        "topologySpreadConstraints": [_zone_spread(selector)],
        "affinity": _host_spread(selector),
        "containers": [container],
        "volumes": [{"name": TEMPORARY_VOLUME, "emptyDir": {"sizeLimit": TEMPORARY_SIZE}}, *volumes],
    }


def alone_on_its_host(selector: dict[str, str]) -> Affinity:
    """Never two on one host: for quorums, which two losses at once would break."""
    return {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": HOST, "labelSelector": {"matchLabels": selector}}
            ]
        }
    }


def _zone_spread(selector: dict[str, str]) -> TopologySpreadConstraint:
    """Even over zones. Hard would block a rollout when a zone is full or gone, so it is a strong wish."""
    return {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _host_spread(selector: dict[str, str]) -> Affinity:
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 100, "podAffinityTerm": {"topologyKey": HOST, "labelSelector": {"matchLabels": selector}}}
            ]
        }
    }
