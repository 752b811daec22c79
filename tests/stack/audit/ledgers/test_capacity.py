from __future__ import annotations

import pytest

from components.node import Replicas
from tests.small import service, small_platform
from tests.stack.audit.ledgers.rows import ledger, rows
from tests.stack.audit.rule_findings import READ, of_manifests

PLATFORM = small_platform(
    service("a", READ, replicas=Replicas(min=2, max=4)), service("b", READ, replicas=Replicas(min=1, max=1))
)
"""Each pod requests 100m and 64 MiB = 0.0625 GiB."""


def test_a_workload_requests_its_number_of_pods_times_the_requests_of_a_pod() -> None:
    """`a` has at least 2 pods and at most 4. The expected number is minimum + 15 % of the range: 2 + 0.15 × 2 = 2.3.

    `b` always has 1 pod.
    """
    found = rows(PLATFORM, "capacity", "requests of the workloads")
    assert found["shop/a"] == ("2..4", 0.1, 0.0625, *map(pytest.approx, (0.2, 0.23, 0.4, 0.125, 0.14375, 0.25)))
    assert found["total"] == ("", None, None, *map(pytest.approx, (0.3, 0.33, 0.5, 0.1875, 0.20625, 0.3125)))


def test_a_job_requests_nothing_while_it_does_not_run() -> None:
    """A job has 0 or 1 pods. The expected number is minimum + 15 % of the range: 0 + 0.15 × 1 = 0.15."""
    amounts = {"cpu": "100m", "memory": "64Mi"}
    pod = {"spec": {"containers": [{"resources": {"requests": amounts, "limits": amounts}}]}}
    job = {"kind": "Job", "metadata": {"namespace": "shop", "name": "load"}, "spec": {"template": pod}}
    found = rows(of_manifests(job), "capacity", "requests of the workloads")
    assert found["total"] == ("", None, None, *map(pytest.approx, (0, 0.015, 0.1, 0, 0.009375, 0.0625)))


def test_a_namespace_is_compared_with_its_quota_and_all_workloads_with_the_nodes() -> None:
    """The workloads have at least 3 pods and at most 5, and are expected to have 3.3.

    A rollout adds one pod to each of the two Deployments: 5 + 2 = 7. Up to 5 replaced pods may still be stopping, and
    the quota counts them too: 7 + 5 = 12. The quota is 4 cores and 40 pods. The node pool is one node with 8 cores.
    """
    table = [row for row in _limits() if row[:2] in {("shop", "pods"), ("shop", "cpu requests, cores")}]
    (cpu, pods) = table
    assert cpu[2:] == (*map(pytest.approx, (0.3, 0.33, 0.5, 0.7, 1.2)), 4.0, pytest.approx(0.3))
    assert pods[2:] == (3, pytest.approx(3.3), 5, 7, 12, 40, pytest.approx(0.3))
    (nodes,) = [row for row in _limits() if row[:2] == ("node pool", "cpu requests, cores")]
    assert nodes[2:] == (*map(pytest.approx, (0.3, 0.33, 0.5, 0.7, 1.2)), 8.0, pytest.approx(0.0875))


def _limits() -> list[tuple[object, ...]]:
    return list(ledger(PLATFORM, "capacity").tables[1].rows)
