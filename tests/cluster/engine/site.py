import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from components.namespace import NamespaceGuard
from stack.deploy.secret_values import generated
from stack.model.platform import Platform
from tests.cluster.cluster import Cluster
from tests.cluster.engine.engine import Project, Secrets, Stack
from tests.cluster.engine.subjects import Subject
from tests.cluster.kubectl import KUBECTL, Kubectl
from tests.cluster.manifests import Object


class Site:
    """A cluster whose kubeconfig has one context, and a project that deploys an environment to it."""

    def __init__(self, cluster: Cluster, folder: Path, subject: Subject, environment: str) -> None:
        self.cluster = cluster
        self.environment = environment
        self.project = Project(folder, cluster.kubectl.kubeconfig)
        self._subject = subject
        subject.lay_out(self.project.folder)

    @property
    def platform(self) -> Platform:
        """The platform that the project deploys, unless a test has edited the project's program."""
        return self._subject.platform(self.environment, self.project.folder)

    @property
    def context(self) -> str:
        return self.cluster.kubectl.run("config", "current-context").strip()

    @cached_property
    def secrets(self) -> Secrets:
        return {secret.name: generated(secret) for secret in self.platform.secrets}

    def stack(self) -> Stack:
        """Creates a stack with every setting and secret. It is not deployed yet."""
        namespace = json.loads(self.cluster.kubectl.run("get", "namespace", "kube-system", "--output=json"))
        settings = {
            "kubernetes:context": self.context,
            "kubernetes:clusterIdentifier": namespace["metadata"]["uid"],
        }
        return self.project.stack(self.environment, settings, self.secrets)


@contextmanager
def existing_cluster(context: str, folder: Path) -> Iterator[Cluster]:
    """The cluster that a context of the user's kubeconfig names."""
    kubeconfig = folder / "kubeconfig"
    view = ("config", "view", "--raw", "--flatten", "--minify", f"--context={context}")
    kubeconfig.write_bytes(subprocess.run([KUBECTL, *view], check=True, capture_output=True).stdout)
    yield Cluster(Kubectl(kubeconfig))


def refuse_taken(cluster: Cluster, platform: Platform) -> None:
    """Refuses a cluster with a namespace of the platform. That namespace may contain a real deployment."""
    there = {each["metadata"]["name"] for each in cluster.kubectl.objects("namespaces")}
    if taken := sorted(there & namespaces(platform)):
        message = f"the cluster has the namespaces {', '.join(taken)} already: choose a cluster without them"
        raise RuntimeError(message)


def namespaces(platform: Platform) -> set[str]:
    return {each.namespace for each in platform.components if isinstance(each, NamespaceGuard)}


def resources(platform: Platform) -> list[Object]:
    return [dict(each) for component in platform.components for each in component.resources()]
