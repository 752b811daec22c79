"""The API server refuses the faults in these tests. So a tree that the API server accepts has none of these faults."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from stack.deploy.operators import operator_of
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import StartCluster
from tests.cluster.manifests import Object
from tests.platforms import of_kind, resources

pytestmark = pytest.mark.cluster

NAMESPACE: Object = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "service", "namespace": "restricted"},
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/name": "service"}},
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": "service"}},
            "spec": {
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "service",
                        "image": "example.invalid/service:1.0.0",
                        "ports": [{"containerPort": 9000}],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        },
    },
}


@pytest.fixture(scope="module")
def cluster(start_cluster: StartCluster) -> Iterator[Cluster]:
    with start_cluster() as cluster:
        cluster.create([NAMESPACE])
        cluster.kubectl.run("wait", "--for=create", "serviceaccount/default", "--namespace=restricted", "--timeout=30s")
        yield cluster


def changed(path: tuple[str | int, ...], value: Any) -> Object:
    content = copy.deepcopy(DEPLOYMENT)
    parent: Any = content
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return content


def pod_of(deployment: Object) -> Object:
    """The Pod of a Deployment. The API server accepts a Deployment even if it refuses the Pod of the Deployment."""
    metadata = {**deployment["metadata"], **deployment["spec"]["template"]["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": deployment["spec"]["template"]["spec"]}


CONTAINER = ("spec", "template", "spec", "containers", 0)


def test_the_unchanged_deployment_is_accepted(cluster: Cluster) -> None:
    assert cluster.dry_run(DEPLOYMENT) == ""
    assert cluster.dry_run(pod_of(DEPLOYMENT)) == ""


def test_a_port_above_65535_is_rejected(cluster: Cluster) -> None:
    refusal = cluster.dry_run(changed((*CONTAINER, "ports"), [{"containerPort": 70000}]))
    assert "containerPort: Invalid value: 70000: must be between 1 and 65535" in refusal


def test_a_privileged_pod_is_refused_under_restricted(cluster: Cluster) -> None:
    refusal = cluster.dry_run(pod_of(changed((*CONTAINER, "securityContext"), {"privileged": True})))
    assert 'violates PodSecurity "restricted:latest": privileged' in refusal


def test_a_misspelt_field_is_rejected(cluster: Cluster) -> None:
    refusal = cluster.dry_run(changed(("spec", "replica"), 2))
    assert 'unknown field "spec.replica"' in refusal


@pytest.mark.parametrize(
    "kind", sorted({found["kind"] for found in resources("prod") if operator_of(found["apiVersion"])})
)
def test_an_unknown_field_of_a_custom_resource_is_rejected(kind: str, cluster: Cluster) -> None:
    content = copy.deepcopy(of_kind("prod", kind)[0])
    content["metadata"]["namespace"] = "restricted"
    assert cluster.dry_run(content) == ""
    content["spec"]["misspelt"] = True
    assert 'unknown field "spec.misspelt"' in cluster.dry_run(content)
