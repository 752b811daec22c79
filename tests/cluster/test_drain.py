import copy

import pytest

from tests.cluster import readiness
from tests.cluster.cluster import NodePool
from tests.cluster.conftest import StartCluster
from tests.cluster.manifests import Object
from tests.cluster.test_refusals import DEPLOYMENT, NAMESPACE

pytestmark = pytest.mark.cluster

BUDGET: Object = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "service", "namespace": "restricted"},
    "spec": {"maxUnavailable": 1, "selector": DEPLOYMENT["spec"]["selector"]},
}


def test_a_drain_violates_no_disruption_budget_and_a_watch_sees_the_violation_when_all_pods_are_deleted(
    start_cluster: StartCluster,
) -> None:
    deployment = copy.deepcopy(DEPLOYMENT)
    deployment["spec"]["replicas"] = 2
    with start_cluster() as cluster:
        node, other = cluster.add_nodes(NodePool(zones=1, nodes_per_zone=2, cpu="4", memory="8Gi"))
        cluster.create([NAMESPACE])
        cluster.kubectl.run("wait", "--for=create", "serviceaccount/default", "--namespace=restricted", "--timeout=30s")
        cluster.create([deployment, BUDGET])
        cluster.wait_ready()
        assert cluster.drain(node) == set()
        cluster.wait_ready()
        with cluster.kubectl.watching("poddisruptionbudgets") as budgets:
            # Both nodes are cordoned, so new pods stay pending, and the budget's controller sees no healthy pod.
            cluster.kubectl.run("cordon", node, other)
            cluster.kubectl.run("delete", "pods", "--all", "--namespace=restricted")
            healthy = "--for=jsonpath={.status.currentHealthy}=0"
            cluster.kubectl.run(
                "wait", healthy, "poddisruptionbudget/service", "--namespace=restricted", "--timeout=60s"
            )
            cluster.kubectl.run("uncordon", node, other)
            cluster.wait_ready()
    assert readiness.breached(budgets) != []
