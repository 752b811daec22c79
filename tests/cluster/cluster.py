import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from uuid import uuid4

from stack.model.settings import Settings
from tests.cluster import manifests, readiness
from tests.cluster.access import Question
from tests.cluster.kubectl import Kubectl
from tests.cluster.manifests import Document, Object

DRAIN_SECONDS = 120
READY_SECONDS = 300.0
STORAGE_CLASS = "static"


@dataclass(frozen=True)
class NodePool:
    """Nodes of equal capacity. CPU, memory and ephemeral storage are Kubernetes quantities."""

    zones: int
    nodes_per_zone: int
    cpu: str
    memory: str
    ephemeral_storage: str = "100Gi"
    pods: int = 110  # kubelet's default

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The declared capacity of an environment: nodes are split evenly into zones, and the remainder is left out."""
        pool = settings.node_pool
        return cls(
            zones=pool.zones, nodes_per_zone=pool.nodes // pool.zones, cpu=str(pool.cpu), memory=str(pool.memory)
        )


@dataclass(frozen=True)
class Applied:
    objects: list[Document]
    rejected: list[str]
    warnings: list[str]


class NotReadyError(AssertionError):
    """The message names each object that is not ready, and the reason."""


class Cluster:
    """A running control plane. Tests use it through kubectl as its administrator."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def add_nodes(self, pool: NodePool) -> list[str]:
        """Adds the nodes of `pool`, which kwok keeps Ready, and returns their names."""
        places = [(zone, number) for zone in range(pool.zones) for number in range(pool.nodes_per_zone)]
        nodes = [_node(pool, f"zone-{zone}", f"node-{zone}-{number}") for zone, number in places]
        self.create(nodes)
        return [node["metadata"]["name"] for node in nodes]

    def add_default_storage_class(self) -> None:
        """Adds a default storage class that provisions no volumes. Claims without a class bind to existing volumes."""
        self.create(
            [
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {
                        "name": STORAGE_CLASS,
                        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
                    },
                    "provisioner": "kubernetes.io/no-provisioner",
                    "volumeBindingMode": "Immediate",
                }
            ]
        )

    def add_definitions(self, file: Path) -> None:
        self.kubectl.run("apply", "--server-side", f"--filename={file}")
        self.kubectl.run("wait", "--for=condition=Established", f"--filename={file}", "--timeout=60s")

    def add_volumes(self, claims: Sequence[Object]) -> None:
        self.create([_volume(f"volume-{uuid4()}", claim) for claim in claims])

    def create(self, objects: Sequence[Object]) -> None:
        """Applies objects that the tests themselves need."""
        if objects:
            self.kubectl.run("apply", "--server-side", "--filename=-", stdin=_as_list(objects))

    def apply(self, tree: Path, over: Sequence[Document] = ()) -> Applied:
        """Applies every object below `tree`, server-side, with strict field validation.

        If a StatefulSet is also in `over`, its volume templates come from `over`, because the API server refuses to
        change them.
        """
        objects = manifests.with_volume_templates(manifests.read(tree), over)
        with tempfile.TemporaryDirectory(prefix="manifests-") as folder:
            manifests.write(objects, Path(folder))
            arguments = ("--server-side", "--validate=strict", "--recursive", f"--filename={folder}")
            said = self.kubectl.attempt("apply", *arguments).stderr.replace(f"{folder}/", "").splitlines()
        warnings = [line for line in said if line.startswith("Warning:")]
        return Applied(
            objects=objects,
            rejected=[line for line in said if line and line not in warnings],
            warnings=warnings,
        )

    def dry_run(self, content: Object) -> str:
        """The API server's refusal or warning in a dry run. Empty if it would create the object without a warning."""
        arguments = ("--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename=-")
        return self.kubectl.attempt("create", *arguments, stdin=json.dumps(content)).stderr

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Waits until every workload, Pod, claim, Service, autoscaler and disruption budget matches its spec.

        Raises:
            NotReadyError: some objects do not match after `seconds`.
        """
        self._wait_until_none(lambda: readiness.unready(self.kubectl.objects(readiness.JUDGED_KINDS)), seconds)

    def scale_autoscaled(self, bound: Literal["minReplicas", "maxReplicas"]) -> None:
        """Scales every autoscaled workload to a bound. Without metrics the autoscaler does not scale it back."""
        for autoscaler in self.kubectl.objects("horizontalpodautoscalers"):
            target, namespace = autoscaler["spec"]["scaleTargetRef"], autoscaler["metadata"]["namespace"]
            workload = f"{target['kind']}/{target['name']}"
            self.kubectl.run("scale", workload, f"--replicas={autoscaler['spec'][bound]}", f"--namespace={namespace}")

    def surge(self) -> list[str]:
        """Starts the rollouts of all Deployments together, and undoes them when each Deployment has a new Pod.

        Returns:
            The messages of all refusals by quotas since the cluster started.

        Raises:
            NotReadyError: a Deployment got no new Pod, or a Pod does not run, for example because no node has room.
        """
        deployments: dict[str, list[str]] = {}
        for each in self.kubectl.objects("deployments"):
            deployments.setdefault(each["metadata"]["namespace"], []).append(f"deployment/{each['metadata']['name']}")
        for namespace, names in deployments.items():
            self.kubectl.run("rollout", "restart", *names, f"--namespace={namespace}")
        self._wait_until_none(lambda: readiness.unsurged(self.kubectl.objects("deployments,pods")), READY_SECONDS)
        for namespace, names in deployments.items():
            self.kubectl.run("rollout", "undo", *names, f"--namespace={namespace}")
        return [event["message"] for event in self._warning_events() if "exceeded quota" in event["message"]]

    def stored(self, documents: Sequence[Document]) -> list[Object]:
        text = "\n---\n".join(document.text for document in documents)
        items: list[Object] = json.loads(self.kubectl.run("get", "--filename=-", "--output=json", stdin=text))["items"]
        return items

    def contents(self, documents: Sequence[Document]) -> dict[str, Object]:
        return {manifests.identity(each): _without_state(each) for each in self.stored(documents)}

    def ready_endpoints(self) -> Mapping[tuple[str, str], int]:
        counts: Counter[tuple[str, str]] = Counter()
        for slice_ in self.kubectl.objects("endpointslices"):
            service = slice_["metadata"]["labels"]["kubernetes.io/service-name"]
            ready = [each for each in slice_["endpoints"] or [] if each["conditions"].get("ready")]
            counts[slice_["metadata"]["namespace"], service] += len(ready)
        return counts

    def can_i(self, questions: Sequence[Question]) -> list[bool]:
        reviews = _as_list([question.review() for question in questions])
        answers = self.kubectl.run(
            "create", "--filename=-", "--output=jsonpath={.status.allowed}{'\\n'}", stdin=reviews
        )
        return [answer == "true" for answer in answers.split()]

    def drain(self, node: str) -> set[str]:
        """Evicts the Pods of the node, except those of DaemonSets, and makes the node schedulable again.

        Returns:
            Every breach of a disruption budget during the drain.

        Raises:
            KubectlError: the drain did not end in `DRAIN_SECONDS`.
        """
        arguments = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s")
        with self.kubectl.watching("poddisruptionbudgets") as budgets:
            self.kubectl.run("drain", node, *arguments)
            self.kubectl.run("uncordon", node)
        return set(readiness.breached(budgets))

    def _wait_until_none(self, complaints: Callable[[], list[str]], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while remaining := complaints():
            if time.monotonic() > deadline:
                raise NotReadyError("\n".join([f"not ready after {seconds:.0f} s:", *remaining, *self._warnings()]))
            time.sleep(1)

    def _warnings(self) -> list[str]:
        """The last listed warning event of each reason for each object."""
        warnings: dict[tuple[str, str], str] = {}
        for event in self._warning_events():
            about = event["involvedObject"]
            subject = f"{about['kind']} {about.get('namespace', '')}/{about['name']}"
            warnings[event["reason"], subject] = f"event of {subject}: {event['reason']}: {event['message']}"
        return list(warnings.values())

    def _warning_events(self) -> list[Object]:
        return [event for event in self.kubectl.objects("events") if event["type"] == "Warning"]


def _without_state(content: Object) -> Object:
    metadata = {
        key: value for key, value in content["metadata"].items() if key not in {"managedFields", "resourceVersion"}
    }
    return {**{key: value for key, value in content.items() if key != "status"}, "metadata": metadata}


def _as_list(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def _node(pool: NodePool, zone: str, name: str) -> Object:
    resources = {
        "cpu": pool.cpu,
        "memory": pool.memory,
        "ephemeral-storage": pool.ephemeral_storage,
        "pods": str(pool.pods),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "topology.kubernetes.io/zone": zone,
            },
        },
        "status": {"allocatable": resources, "capacity": resources},
    }


def _volume(name: str, claim: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": claim["accessModes"],
            "capacity": {"storage": claim["resources"]["requests"]["storage"]},
            "hostPath": {"path": f"/volumes/{name}"},
            "storageClassName": claim.get("storageClassName", STORAGE_CLASS),
        },
    }
