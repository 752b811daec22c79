"""A StatefulSet of pods that each keep a volume, and the Service that names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from voice_policies import Bytes

from components.workload import secret_mounts

if TYPE_CHECKING:
    from components.kubernetes.types import (
        Container,
        ObjectMeta,
        PersistentVolumeClaim,
        PodTemplateSpec,
        Service,
        StatefulSet,
        StatefulSetSpec,
        Volume,
    )
    from components.secret_keys import SecretKeys

DATA_VOLUME = "data"
SCRATCH_SIZE = "64Mi"


def volume_claim(metadata: ObjectMeta, size: Bytes) -> PersistentVolumeClaim:
    """A volume for one pod at a time. A larger size grows it in place; the API server refuses a smaller one."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(size)}}},
    }


def stateful_set(
    metadata: ObjectMeta,
    selector: dict[str, str],
    template: PodTemplateSpec,
    *,
    replicas: int = 1,
) -> StatefulSet:
    """Pods of stable names."""
    spec: StatefulSetSpec = {
        "serviceName": metadata["name"],
        "replicas": replicas,
        "revisionHistoryLimit": 5,
        "minReadySeconds": 5,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate"},
        "selector": {"matchLabels": selector},
        "template": template,
    }
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def with_volumes(workload: StatefulSet, size: Bytes) -> Iterator[PersistentVolumeClaim | StatefulSet]:
    """A claim for each pod, by the name that its StatefulSet looks for, then the StatefulSet.

    The claims are resources of their own because a claim can grow and a StatefulSet's template cannot change: the
    template keeps the size that it was created with. Volumes outlive the StatefulSet: data goes only deliberately.
    """
    spec, metadata = workload["spec"], workload["metadata"]
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    spec["volumeClaimTemplates"] = [volume_claim({"name": DATA_VOLUME}, size)]
    for ordinal in range(spec["replicas"]):
        yield volume_claim({**metadata, "name": f"{DATA_VOLUME}-{metadata['name']}-{ordinal}"}, size)
    yield workload


def tcp_service(metadata: ObjectMeta, selector: dict[str, str], port: int, *, headless: bool = False) -> Service:
    """One port, under one address or (headless) under each pod's own, ready or not."""
    service: Service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [{"name": "tcp", "port": port, "targetPort": port}],
        },
    }
    if headless:
        service["spec"].update({"clusterIP": "None", "publishNotReadyAddresses": True})
    return service


def scratch(name: str, size: str = SCRATCH_SIZE) -> Volume:
    """An empty directory that lives as long as the pod."""
    return {"name": name, "emptyDir": {"sizeLimit": size}}


def mount(container: Container, name: str, path: str, *, read_only: bool = False) -> None:
    """Mount a volume of the pod into a container."""
    container["volumeMounts"].append(
        {"name": name, "mountPath": path, "readOnly": True} if read_only else {"name": name, "mountPath": path}
    )


def configuration_writer(
    container: Container, config_path: str, run_path: str, secrets: Iterable[SecretKeys]
) -> Container:
    """Makes `container` run the script of its name before the server: mounted secrets become files in `run_path`."""
    container["command"] = ["sh", f"{config_path}/{container['name']}.sh"]
    mount(container, "config", config_path, read_only=True)
    mount(container, "run", run_path)
    container["volumeMounts"] += secret_mounts(secrets)
    return container
