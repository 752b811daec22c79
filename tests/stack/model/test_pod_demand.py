from __future__ import annotations

from typing import Any

from voice_policies import Bytes, Cpu

from stack.model.pod_demand import Amounts, demands


def container(cpu: str, memory: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}}


def workload(kind: str, spec: dict[str, Any], name: str = "a") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "there"}, "spec": spec}


def template(*containers: dict[str, Any], first: tuple[dict[str, Any], ...] = (), **metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, "spec": {"containers": list(containers), "initContainers": list(first)}}


def amounts(cpu: str, memory: str) -> Amounts:
    return Amounts(Cpu(cpu), Cpu(cpu), Bytes(memory), Bytes(memory))


def test_a_deployment_counts_as_many_pods_as_its_autoscalers_maximum_plus_the_surge() -> None:
    scaler = workload(
        "HorizontalPodAutoscaler", {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "maxReplicas": 7}
    )
    (found,) = demands([deployment(grace=16), scaler], nodes=3)
    assert (found.namespace, found.name, found.pods, found.each) == ("there", "a", 8, amounts("1", "1Gi"))


def deployment(grace: int, ready: int = 5) -> dict[str, Any]:
    pod = template(container("1", "1Gi"))
    pod["spec"]["terminationGracePeriodSeconds"] = grace
    return workload("Deployment", {"replicas": 3, "minReadySeconds": ready, "template": pod})


def test_the_number_of_stopping_pods_grows_with_the_grace_period_up_to_the_replicas() -> None:
    assert [found.stopping for found in demands([deployment(grace=10), deployment(grace=60)], nodes=3)] == [2, 3]


def test_a_pod_that_is_available_immediately_counts_as_available_after_one_second() -> None:
    assert [found.stopping for found in demands([deployment(grace=2, ready=0)], nodes=3)] == [2]


def test_containers_add_up_and_an_init_container_counts_if_it_needs_more() -> None:
    pod = template(container("1", "1Gi"), container("500m", "1Gi"), first=(container("2", "512Mi"),))
    (found,) = demands([workload("StatefulSet", {"replicas": 3, "template": pod})], nodes=3)
    assert (found.pods, found.each) == (3, amounts("2", "2Gi"))


def test_a_daemon_set_counts_one_pod_per_node_and_a_job_one_pod() -> None:
    pod = template(container("1", "1Gi"))
    daemon, job, cron = (
        workload("DaemonSet", {"template": pod}),
        workload("Job", {"template": pod}),
        workload("CronJob", {"jobTemplate": {"spec": {"template": pod}}}),
    )
    assert [found.pods for found in demands([daemon, job, cron], nodes=5)] == [5, 1, 1]


def test_the_proxy_that_a_mesh_adds_is_counted_by_its_annotations() -> None:
    sizes = {"CPU": "100m", "CPULimit": "500m", "Memory": "64Mi", "MemoryLimit": "256Mi"}
    annotations = {f"sidecar.istio.io/proxy{what}": size for what, size in sizes.items()}
    pod = template(container("1", "1Gi"), annotations=annotations)
    (found,) = demands([workload("StatefulSet", {"template": pod})], nodes=1)
    assert found.each == Amounts(Cpu("1100m"), Cpu("1500m"), Bytes("1088Mi"), Bytes("1280Mi"))


def test_the_archiver_of_a_database_is_counted_in_each_instance() -> None:
    plugin = {"name": "barman", "parameters": {"barmanObjectName": "store"}}
    cluster = workload("Cluster", {"instances": 3, "plugins": [plugin, plugin], **container("2", "4Gi")})
    store = workload("ObjectStore", {"instanceSidecarConfiguration": container("100m", "1Gi")}, name="store")
    (found,) = demands([cluster, store], nodes=1)
    assert (found.pods, found.each) == (4, amounts("2100m", "5Gi"))


def test_pods_that_an_operator_creates_are_counted() -> None:
    cluster = workload("Cluster", {"instances": 3, **container("2", "4Gi")})
    pooler = workload("Pooler", {"instances": 2, "template": template(container("1", "1Gi"))})
    assert [(found.pods, found.each.cpu_requests) for found in demands([cluster, pooler], nodes=1)] == [
        (4, Cpu("2")),
        (2, Cpu("1")),
    ]
