from __future__ import annotations

from typing import Any

from voice_policies import Bytes, Cpu

from components.node import Replicas
from components.operation import hard, operation, stage
from stack.model.platform import Platform
from stack.model.profile import DatabaseLimits
from stack.voiceassistant import TENANT
from tests import toy
from tests.platforms import real_environment, with_profile
from tests.small import service, small_platform
from tests.stack.audit.rule_findings import READ, STORE, verdict


def using_a_database(**profile: Any) -> Platform:
    """A service with a pool of ten connections, at two to four replicas."""
    call = stage(hard("store.read", "idempotent"))
    return small_platform(
        service("a", operation("run", call, p95="1s", deadline="2s"), connection_pool=10), STORE, **profile
    )


def test_d01_finds_pools_that_do_not_fit() -> None:
    tight = DatabaseLimits(max_connections=30, poolers=2, pool_size=10, max_client_connections=20)
    servers, clients = verdict("D01", using_a_database(database=tight)).findings
    assert servers.arithmetic == "10 × 1 databases × 2 poolers = 20 > 30 − 13 reserved = 17"
    assert servers.proposal == "8"
    assert clients.arithmetic == "Σ (max replicas + 1) × pool = 50 > 20 clients of one pooler"
    assert clients.severity == "critical", "(min 2 + 1) × 10 = 30 clients already exceed 20"
    few = DatabaseLimits(poolers=2, pool_size=10, max_client_connections=30)
    (fewer,) = verdict("D01", using_a_database(database=few)).findings
    assert fewer.severity == "error", "(min 2 + 1) × 10 = 30 clients just fit"
    full = DatabaseLimits(max_connections=33, poolers=2, pool_size=10, max_client_connections=50)
    assert verdict("D01", using_a_database(database=full)).text == "holds", (
        "33 − 13 reserved = 20, the connections of the poolers"
    )
    roomy = DatabaseLimits(poolers=2, pool_size=10, max_client_connections=50)
    assert verdict("D01", using_a_database(database=roomy)).text == "holds"


def test_d01_without_a_pooler_checks_the_limits_of_the_role_and_the_server() -> None:
    (role,) = verdict("D01", using_a_database(database=DatabaseLimits(poolers=0, pool_size=20))).findings
    assert (role.path, role.arithmetic) == (
        "a → postgresql",
        "(max replicas + 1) × pool = 50 > 20 connections of the service's role",
    )
    few = DatabaseLimits(poolers=0, pool_size=50, max_connections=60)
    (server,) = verdict("D01", using_a_database(database=few)).findings
    assert (server.path, server.arithmetic) == (
        "services → postgresql",
        "Σ (max replicas + 1) × pool = 50 > 60 − 13 reserved = 47",
    )
    assert (role.severity, server.severity) == ("critical", "error"), "(min 2 + 1) × 10 = 30 > 20, but < 47"
    none = DatabaseLimits(poolers=0, pool_size=49, max_connections=42)
    role, server = verdict("D01", using_a_database(database=none)).findings
    assert (role.severity, server.severity) == ("error", "critical"), (
        "(min 2 + 1) × 10 = 30 connections fit into 49, but exceed 42 − 13 reserved = 29"
    )
    full = DatabaseLimits(poolers=0, pool_size=50, max_connections=63)
    assert verdict("D01", using_a_database(database=full)).text == "holds"


def test_d02_finds_requests_limits_and_pods_beyond_the_quota() -> None:
    tight = toy.QUOTA.model_copy(update={"cpu_requests": Cpu("400m"), "memory_limits": Bytes("1Mi"), "pods": 4})
    found = verdict("D02", using_a_database(quotas={"shop": tight})).findings
    assert [f.arithmetic for f in found] == [
        "Σ (max replicas + 1) × cpu_requests = 500m > 400m",
        "Σ (max replicas + 1) × memory_limits = 640Mi > 1Mi",
        "Σ (max replicas + 1) × pods = 5 > 4",
    ]


def test_h03_counts_the_pods_that_are_still_stopping() -> None:
    """4 replicas + 1 pod of surge + 4 replaced pods in their grace period = 9."""
    full = toy.QUOTA.model_copy(update={"pods": 8})
    (found,) = verdict("H03", using_a_database(quotas={"shop": full})).findings
    assert (found.path, found.arithmetic) == ("shop → quota.pods", "Σ (max replicas + 1 + stopping) × pods = 9 > 8")
    roomy = full.model_copy(update={"pods": 9})
    assert verdict("H03", using_a_database(quotas={"shop": roomy})).text == "holds"


def test_d02_adds_up_all_workloads_of_a_namespace() -> None:
    quotas = {**real_environment("prod").profile.quotas}
    quotas["voice-data"] = quotas["voice-data"].model_copy(update={"memory_requests": Bytes("1Gi")})
    changed = with_profile(real_environment("prod"), quotas=quotas)
    (found,) = verdict("D02", Platform(TENANT, changed)).findings
    assert found.path == "voice-data → quota.memory_requests"
    assert found.field == "quotas['voice-data'].memory_requests of profile prod"
    assert found.proposal == "51008Mi"


def test_d02_holds_if_the_maximum_with_surge_fits_the_quota() -> None:
    sizing = {"cpu_request": "1", "cpu_limit": "2", "memory_request": "1Gi", "memory_limit": "2Gi"}
    big = service("a", operation("run", p95="1s", deadline="2s"), replicas=Replicas(min=2, max=82), sizing=sizing)
    roomy = {"cpu_requests": Cpu("100"), "cpu_limits": Cpu("200"), "memory_requests": Bytes("100Gi")}
    quota = toy.QUOTA.model_copy(update={**roomy, "memory_limits": Bytes("200Gi"), "pods": 100})
    pool = toy.ENVIRONMENT.settings.node_pool.model_copy(update={"nodes": 20})
    settings = toy.ENVIRONMENT.settings.model_copy(update={"node_pool": pool})
    environment = toy.ENVIRONMENT.model_copy(update={"settings": settings})
    assert verdict("D02", small_platform(big, environment=environment, quotas={"shop": quota})).text == "holds"


def test_d01_finds_a_caller_without_a_pool_and_ignores_other_services() -> None:
    call = stage(hard("store.read", "idempotent"))
    without = service("a", operation("run", call, p95="1s", deadline="2s"), connection_pool=0)
    (found,) = verdict("D01", small_platform(without, STORE)).findings
    assert found.arithmetic == "the service calls a database, but its pool has 0 connections"
    idle = service("b", operation("run", p95="1s", deadline="2s"), connection_pool=500)
    assert verdict("D01", small_platform(idle, STORE)).text == "does not apply", "it calls no database"


def test_d02_finds_cpu_and_memory_requests_that_exceed_the_nodes() -> None:
    """4 replicas and 1 pod of surge, each with requests of 100m and 64 MiB."""
    pool = toy.ENVIRONMENT.settings.node_pool.model_copy(
        update={"nodes": 2, "cpu": Cpu("200m"), "memory": Bytes("150Mi")}
    )
    settings = toy.ENVIRONMENT.settings.model_copy(update={"node_pool": pool})
    environment = toy.ENVIRONMENT.model_copy(update={"settings": settings})
    found = verdict("D02", small_platform(service("a", READ), environment=environment)).findings
    assert [(each.path, each.arithmetic, each.proposal) for each in found] == [
        ("platform → node_pool", "Σ (max replicas + 1) × requests.cpu = 500m > 2 nodes × 200m = 400m", "nodes: 3"),
        (
            "platform → node_pool",
            "Σ (max replicas + 1) × requests.memory = 320Mi > 2 nodes × 150Mi = 300Mi",
            "nodes: 3",
        ),
    ]
