"""A cluster, and a project that deploys to it."""

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from components.namespace import NamespaceGuard
from tests.cluster.cluster import Cluster
from tests.cluster.engine.engine import Project, Secrets, Stack
from tests.cluster.kubectl import KUBECTL, Kubectl
from tests.stack.deploy.program_run import offline


class Site:
    """A cluster by the one context of its kubeconfig, and a project that deploys to it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.project = Project(folder, cluster.kubectl.kubeconfig)

    def stack(self, environment: str) -> Stack:
        """A stack of an environment that lacks nothing, and is not deployed yet."""
        namespace = json.loads(self.cluster.kubectl.run("get", "namespace", "kube-system", "--output=json"))
        settings = {
            "kubernetes:context": self.cluster.kubectl.run("config", "current-context").strip(),
            "kubernetes:clusterIdentifier": namespace["metadata"]["uid"],
        }
        return self.project.stack(environment, settings, secret_values(environment))


@contextmanager
def existing_cluster(context: str, folder: Path) -> Iterator[Cluster]:
    """Somebody's own cluster, by a context of their kubeconfig; one that holds a deployment already is refused."""
    kubeconfig = folder / "kubeconfig"
    view = ("config", "view", "--raw", "--flatten", "--minify", f"--context={context}")
    kubeconfig.write_bytes(subprocess.run([KUBECTL, *view], check=True, capture_output=True).stdout)
    cluster = Cluster(Kubectl(kubeconfig))
    there = {each["metadata"]["name"] for each in cluster.kubectl.objects("namespaces")}
    if taken := sorted(there & namespaces("dev")):
        message = (
            f"{context} has the namespaces {', '.join(taken)} already; a deployment that is not a test's may be in them"
        )
        raise RuntimeError(message)
    yield cluster


def namespaces(environment: str) -> set[str]:
    """The namespaces of an environment."""
    return {guard.namespace for guard in offline(environment).components if isinstance(guard, NamespaceGuard)}


@cache
def secret_values(environment: str) -> Secrets:
    """A value for every secret that an environment declares, of the form that its server reads."""
    declared = {secret.name: secret.keys for each in offline(environment).components for secret in each.secrets}
    special = _special_values()
    return {name: {key: special.get((name, key), str(uuid4())) for key in keys} for name, keys in declared.items()}


def _special_values() -> Mapping[tuple[str, str], str]:
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=test", "-keyout", "-")
    made = subprocess.run(["openssl", *request], check=True, capture_output=True, text=True).stdout
    key, end, certificate = made.partition("-----END PRIVATE KEY-----\n")
    return {
        ("registry", "dockerconfigjson"): '{"auths": {}}',
        ("consul-server", "gossip-key"): b64encode(os.urandom(32)).decode(),
        ("gateway-tls", "private-key"): key + end,
        ("gateway-tls", "certificate"): certificate,
    }
