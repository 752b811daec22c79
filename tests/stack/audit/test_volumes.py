from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from voice_policies import Bytes, Duration

from components.container import Container
from components.probes import Probe, Probes
from components.server import Workload
from components.volumes import Claim, Scratch, Volume
from components.writes import StartWork, Write
from stack.model.platform import Platform
from stack.model.tenant import Tenant, Tier
from tests import toy
from tests.components.small_server import server, store
from tests.platforms import ENVIRONMENTS, platform
from tests.stack.audit.rule_findings import verdict


def with_workload(workload: Workload) -> Platform:
    tier = Tier(lambda *_: [partial(server, workload)])
    tenant = Tenant(
        **{**{name: getattr(toy.TENANT, name) for name in TENANT_FIELDS}, "tiers": (*toy.TENANT.tiers, tier)}
    )
    return Platform(tenant, toy.ENVIRONMENT)


TENANT_FIELDS = ("name", "catalogue", "alerting", "profiles")


def writing(size: str, volume: Volume) -> Platform:
    write = Write("data", Bytes(size), "a dump")
    return with_workload(store(volumes={"data": volume}, writes=(write,)))


def claim(size: str) -> Claim:
    return Claim("store", Bytes(size))


@pytest.mark.parametrize(
    ("volume", "arithmetic", "proposal"),
    [
        (Scratch(Bytes("613Mi")), "614Mi (a dump) = 614Mi > 613Mi", "614Mi"),
        (claim("700Mi"), "614Mi (a dump) = 614Mi > 85% of 700Mi = 595Mi", "723Mi"),
    ],
    ids=["emptyDir", "claim"],
)
def test_v01_finds_a_volume_that_is_too_small_for_its_writes(volume: Volume, arithmetic: str, proposal: str) -> None:
    (found,) = verdict("V01", writing("614Mi", volume)).findings
    assert (found.path, found.arithmetic, found.proposal) == ("stores/store volume data", arithmetic, proposal)


@pytest.mark.parametrize("volume", [Scratch(Bytes("614Mi")), claim("723Mi")], ids=["emptyDir", "claim"])
def test_v01_holds_if_the_writes_just_fit(volume: Volume) -> None:
    assert verdict("V01", writing("614Mi", volume)).text == "holds"


def test_v01_adds_up_the_writes_to_a_volume() -> None:
    writes = (Write("data", Bytes("40Mi"), "a dump"), Write("data", Bytes("60Mi"), "a log"))
    (found,) = verdict("V01", with_workload(store(volumes={"data": Scratch(Bytes("99Mi"))}, writes=writes))).findings
    assert found.arithmetic == "40Mi (a dump) + 60Mi (a log) = 100Mi > 99Mi"


def test_v01_finds_a_volume_whose_writes_nobody_declares() -> None:
    (found,) = verdict("V01", with_workload(store(storage=Bytes("5Gi")))).findings
    assert (found.path, found.arithmetic) == (
        "stores/store volume data",
        "the workload declares no writes to this volume",
    )


def starting(failures: int, size: str = "2Gi") -> Platform:
    startup = Probe.tcp(period=Duration("2s"), failures=failures)
    probes = Probes(startup=startup, liveness=Probe.tcp(), readiness=Probe.tcp())
    work = StartWork(Bytes(size), Bytes("20Mi"), "replay of a log")
    return with_workload(store(container=Container(probes=probes), start_work=work))


def test_v02_does_not_apply_to_a_server_without_start_up_work() -> None:
    startup = Probe.tcp(period=Duration("2s"), failures=1)
    probes = Probes(startup=startup, liveness=Probe.tcp(), readiness=Probe.tcp())
    assert verdict("V02", with_workload(store(container=Container(probes=probes)))).text == "does not apply"


def test_v02_finds_start_up_work_that_exceeds_the_startup_probe() -> None:
    (found,) = verdict("V02", starting(51)).findings
    assert found.path == "stores/store"
    assert found.arithmetic == "2048Mi (replay of a log) ÷ 20Mi/s = 103s > 102s"
    assert found.proposal == "103s"


def test_v02_holds_if_the_start_up_work_just_fits() -> None:
    assert verdict("V02", starting(52)).text == "holds"
    assert verdict("V02", starting(50, "2000Mi")).text == "holds", "100 s of work in a budget of 100 s"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_ephemeral_storage_limit_covers_the_emptydirs_and_the_logs(environment: str) -> None:
    for component in platform(environment).components:
        for resource in component.resources():
            found: Any = resource
            if found["kind"] in {"Deployment", "StatefulSet"}:
                pod = found["spec"]["template"]["spec"]
                on_node = [each["emptyDir"] for each in pod["volumes"] if "emptyDir" in each]
                written = sum(Bytes(each["sizeLimit"]).units for each in on_node if "medium" not in each)
                (container, *_) = pod["containers"]
                assert Bytes(container["resources"]["limits"]["ephemeral-storage"]).units >= written + 64 * 2**20
