from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Bytes, Duration

from components.container import Container
from components.node import Replicas
from components.volumes import Claim, ConfigFiles, HostPath
from components.workloads import CronJob, DaemonSet, Deployment, Job
from tests.components.small_server import rendered, store

POD: dict[str, Any] = {"name": "store", "container": Container(), "shutdown": Duration("10s")}


def job_name(text: str = "", command: tuple[str, ...] = ("run",)) -> str:
    volumes = {"files": ConfigFiles("store-setup", {"setup.sh": text})}
    (job,) = rendered(Job(name="store-setup", container=Container(command=command), volumes=volumes))["Job"]
    name: str = job["metadata"]["name"]
    return name


def test_claims_are_created_before_the_stateful_set_and_kept_after_it() -> None:
    found = rendered(store(replicas=3, storage=Bytes("5Gi")))
    kinds = list(found)
    assert kinds.index("PersistentVolumeClaim") < kinds.index("StatefulSet")
    assert [claim["metadata"]["name"] for claim in found["PersistentVolumeClaim"]] == [
        *("data-store-0", "data-store-1", "data-store-2")
    ]
    spec = found["StatefulSet"][0]["spec"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["volumeClaimTemplates"][0]["spec"] == found["PersistentVolumeClaim"][0]["spec"]


def test_a_store_without_storage_has_no_claim() -> None:
    found = rendered(store())
    assert "PersistentVolumeClaim" not in found
    assert "volumeClaimTemplates" not in found["StatefulSet"][0]["spec"]


def test_the_pods_of_a_stateful_set_start_in_parallel() -> None:
    (found,) = rendered(store(governing_service="store-nodes"))["StatefulSet"]
    assert found["spec"]["podManagementPolicy"] == "Parallel"
    assert found["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    assert found["spec"]["serviceName"] == "store-nodes"


def test_if_replicas_are_a_range_only_the_autoscaler_sets_their_number() -> None:
    found = rendered(Deployment(**POD, replicas=Replicas(min=2, max=4)))
    assert "replicas" not in found["Deployment"][0]["spec"]
    fixed = rendered(Deployment(**POD, replicas=Replicas.exactly(2)))
    assert fixed["Deployment"][0]["spec"]["replicas"] == 2
    assert "HorizontalPodAutoscaler" not in fixed


def test_the_autoscaler_uses_the_cpu_of_the_servers_own_container() -> None:
    pod = {**POD, "container": Container(name="program")}
    found = rendered(Deployment(**pod, replicas=Replicas(min=2, max=4)))
    (metric,) = found["HorizontalPodAutoscaler"][0]["spec"]["metrics"]
    assert metric["type"] == "ContainerResource"
    assert (metric["containerResource"]["name"], metric["containerResource"]["container"]) == ("cpu", "program")
    (container,) = found["Deployment"][0]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "program"


def test_the_progress_deadline_is_three_times_the_longest_start() -> None:
    found = rendered(Deployment(**POD, replicas=Replicas.exactly(1), startup=Duration("3m")))
    assert found["Deployment"][0]["spec"]["progressDeadlineSeconds"] == 540


def test_a_job_has_the_lowest_priority_and_a_deployment_has_the_priority_of_its_server() -> None:
    found = rendered(Deployment(**POD, replicas=Replicas.exactly(1)), Job(name="setup", container=Container()))
    names = [found[kind][0]["spec"]["template"]["spec"]["priorityClassName"] for kind in ("Deployment", "Job")]
    assert names == ["voice-standard", "voice-batch"]


@pytest.mark.parametrize(("count", "budgets"), [(1, 0), (2, 1)], ids=["one-replica", "two-replicas"])
def test_only_several_replicas_have_a_disruption_budget(count: int, budgets: int) -> None:
    for workload in (Deployment(**POD, replicas=Replicas.exactly(count)), store(replicas=count)):
        assert len(rendered(workload).get("PodDisruptionBudget", [])) == budgets


def test_a_daemon_set_tolerates_every_taint_and_mounts_directories_of_the_node() -> None:
    volumes = {"logs": HostPath("/var/log"), "state": HostPath("/var/lib/store", read_only=False)}
    (found,) = rendered(DaemonSet(**POD, volumes=volumes))["DaemonSet"]
    pod = found["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert not {"affinity", "topologySpreadConstraints"} & pod.keys()
    kinds = {volume["name"]: volume["hostPath"]["type"] for volume in pod["volumes"] if "hostPath" in volume}
    assert kinds == {"logs": "Directory", "state": "DirectoryOrCreate"}


def test_a_job_with_changed_files_or_a_changed_pod_has_another_name() -> None:
    assert job_name() == job_name()
    assert len({job_name(), job_name(text="changed"), job_name(command=("other",))}) == 3


def test_a_job_has_a_deadline_and_no_pre_stop_sleep() -> None:
    (job,) = rendered(Job(name="store-setup", container=Container(), retries=20))["Job"]
    pod = job["spec"]["template"]["spec"]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (20, 1800)
    assert pod["restartPolicy"] == "OnFailure"
    assert "lifecycle" not in pod["containers"][0]


def test_jobs_of_one_server_share_an_account_and_a_suspended_job_has_no_retries() -> None:
    jobs = [
        CronJob(name="store-backup", job=f"store-{action}", container=Container(), suspended=action == "restore")
        for action in ("backup", "restore")
    ]
    found = rendered(*jobs)
    assert len(found["NetworkPolicy"]) == len(found["ServiceAccount"]) == 1
    tries = {job["metadata"]["name"]: job["spec"]["jobTemplate"]["spec"]["backoffLimit"] for job in found["CronJob"]}
    assert tries == {"store-backup": 2, "store-restore": 0}
    assert [job["spec"]["suspend"] for job in found["CronJob"]] == [False, True]


def test_jobs_that_share_a_volume_have_one_claim() -> None:
    volumes = {"dumps": Claim("store-backup", Bytes("1Gi"))}
    found = rendered(*(CronJob(name=name, container=Container(), volumes=volumes) for name in ("backup", "restore")))
    (claim,) = found["PersistentVolumeClaim"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
