from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.model.settings import ROOT
from tests.cluster import manifests
from tests.cluster.cluster import Cluster, NodePool
from tests.cluster.conftest import StartCluster
from tests.platforms import platform, real_environment

pytestmark = pytest.mark.cluster

FOLDER = ROOT / "docs" / "runbook"
COMMAND = re.compile(r"^ *(kubectl .+?)(?:  +#.*)?$|`(kubectl [^`]+)`", re.MULTILINE)
NOT_RUN = {
    r"kubectl exec ": "no container runs on kwok's nodes; tests/stack/output/test_runbook.py parses the queries",
    r"kubectl cnpg ": "no operator runs here, and the tests do not build its kubectl plugin",
    r"kubectl top ": "no metrics-server runs here",
    r"kubectl config use-context NAME": "the test has one context",
    r"kubectl create job .*cronjob/postgresql-(backup|restore)": "only dev has these jobs",
    r"kubectl logs .*job/postgresql-(backup|restore)-now": "only dev has these jobs",
    r"kubectl .*postgresql-pooler": "the operator creates these pods, and no operator runs here",
}
"""Pattern of commands → the reason why this test does not run them."""
VALUES = {
    "NAMESPACE": "voice-apps",
    "JOB": "model-adapter",
    "HORIZONTALPODAUTOSCALER": "model-adapter",
    "DEPLOYMENT": "model-adapter",
}
"""Word in capitals → an example value."""
STORED = {"POD": "pods", "STATEFULSET": "statefulsets", "PERSISTENTVOLUMECLAIM": "pvc", "JOB_NAME": "jobs"}
"""Word in capitals → a kind. The name of an object of this kind in the stores' namespace is the example value."""
CHANGES = re.compile(r"kubectl (delete|patch|scale|taint|rollout undo|cordon|drain|uncordon) ")
"""Commands that run as a dry run. `rollout restart` has no dry run. `create job` runs for real, because later commands
need the jobs."""


def commands() -> Iterator[str]:
    found = (
        first or second for path in sorted(FOLDER.glob("*.md")) for first, second in COMMAND.findall(path.read_text())
    )
    return iter(dict.fromkeys(found))


RUN = [command for command in commands() if not any(re.match(pattern, command) for pattern in NOT_RUN)]


@pytest.fixture(scope="module")
def prod(start_cluster: StartCluster, rendered: Callable[[str], Path]) -> Iterator[Cluster]:
    tree = rendered("prod")
    objects = [document.content for document in manifests.read(tree)]
    with start_cluster() as cluster:
        cluster.add_nodes(NodePool.of(real_environment("prod").settings))
        cluster.add_volumes(list(manifests.claims(objects)))
        cluster.apply(tree)
        cluster.wait_ready()
        for service in platform("prod").microservices:  # a second revision, so that a rollout can be undone
            cluster.kubectl.run("rollout", "restart", f"deployment/{service.name}", f"--namespace={service.namespace}")
        cluster.kubectl.run("rollout", "restart", "deployment/gateway", "--namespace=voice-gateway")
        yield cluster


def test_every_reason_not_to_run_matches_a_command() -> None:
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, command) for command in commands())] == []


def test_every_command_that_can_run_here_succeeds(prod: Cluster, report: Callable[[str], None]) -> None:
    refused = [said for command in RUN if (said := refusal(prod, command))]
    assert "\n".join(refused) == ""
    report(f"runbook: {len(RUN)} commands ran")


def refusal(cluster: Cluster, command: str) -> str:
    """The error of a command. Empty if the command succeeds.

    The nodes of kwok have no kubelet, so there are no logs. Instead of `kubectl logs` the test looks up the pods or the
    named object.
    """
    words = shlex.split(filled(cluster, command))[1:]
    if logs := words[0] == "logs":
        words = ["get", *(["pods"] if "-l" in words or "/" not in words[3] else []), *words[1:], "--output=name"]
        words = [word for word in words if not word.startswith(("--all-containers", "--tail"))]
    done = cluster.kubectl.attempt(*words, *(["--dry-run=server"] if CHANGES.match(command) else []))
    found = done.returncode == 0 and (done.stdout or not logs)
    return "" if found else f"{command}: {done.stderr.strip()}"


def filled(cluster: Cluster, command: str) -> str:
    """The command with an example in place of each word in capitals."""
    values = {**VALUES, "NODE": first(cluster, "nodes")}
    if any(re.search(rf"\b{word}\b", command) for word in STORED):
        stored = {word: first(cluster, kind) for word, kind in STORED.items()}
        values |= {"NAMESPACE": "voice-data", **stored}
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda word: values.get(word[0], word[0]), command)


def first(cluster: Cluster, kind: str) -> str:
    """The name of an object of that kind. If the kind is namespaced, the object is in the stores' namespace."""
    return cluster.kubectl.run("get", kind, "--namespace=voice-data", "--output=name").split()[0].partition("/")[2]
