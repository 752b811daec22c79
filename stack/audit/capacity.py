"""D01, D02, H03: connections and resource requests fit the capacity at maximum replicas and during rollouts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

from voice_policies import Bytes, Cpu

from components.node import Dependency, InCluster, Service
from stack.audit.finding import Breach, Rule, Severity
from stack.audit.rendered import rendered
from stack.model.platform import Platform
from stack.model.pod_demand import SURGE, Amounts, Demand
from stack.model.profile import DatabaseLimits
from stack.model.settings import path_of

Bound = Literal["min", "max"]
AT_MOST = f"max replicas + {SURGE}"
ROLLING = f"max replicas + {SURGE} + stopping"


def _pods(platform: Platform, service: Service, bound: Bound) -> int:
    replicas = platform.environment.replicas(service)
    return (replicas.min if bound == "min" else replicas.max) + SURGE


def connections(platform: Platform) -> Iterator[Breach | None]:
    """Compare the connections of all services at maximum replicas with the limits of the pooler or the server."""
    users = [service for service in platform.graph.services if _connects(platform, service)]
    databases = [node for node in platform.graph.nodes.values() if isinstance(node, Dependency) and node.database]
    deployed = any(isinstance(address, InCluster) for database in databases for address in database.addresses)
    # The owner of an external server sets its limits, and the model does not contain them.
    if users and deployed:
        yield from (_without_pool(service) for service in users if not service.connection_pool)
        yield from (_pooled if platform.environment.profile.database.poolers else _direct)(platform, users)


def _connects(platform: Platform, service: Service) -> bool:
    callees = (edge.callee for edge in platform.graph.edges_from(service))
    return any(isinstance(callee, Dependency) and callee.database for callee in callees)


def _without_pool(service: Service) -> Breach:
    text = "the service calls a database, but its pool has 0 connections"
    return Breach(f"{service.name} → pool", text, f"{service.name}.connection_pool", "5", service.location)


def _direct(platform: Platform, users: list[Service]) -> Iterator[Breach | None]:
    """Without a pooler: compare each service with its role's limit, and their sum with the server's limit."""
    limits = platform.environment.profile.database
    for service in users:
        wanted = _clients(platform, [service], "max")
        text = f"(max replicas + {SURGE}) × pool = {wanted} > {limits.role_limit} connections of its role"
        field = f"replicas.{service.name}, its connection_pool, or database.pool_size"
        found = Breach(f"{service.name} → postgresql", text, field, str(wanted))
        yield None if wanted <= limits.role_limit else found
    wanted, room = _clients(platform, users, "max"), limits.max_connections - limits.reserved
    text = f"Σ (max replicas + {SURGE}) × pool = {wanted} > {_room_text(limits)}"
    field = "database.max_connections, or a service's connection_pool"
    yield None if wanted <= room else Breach("services → postgresql", text, field, str(wanted))


def _pooled(platform: Platform, users: list[Service]) -> Iterator[Breach | None]:
    """Compare the pooler's server connections with PostgreSQL's limit, and its clients with the pooler's limit."""
    limits = platform.environment.profile.database
    servers, room = limits.pool_size * len(users) * limits.poolers, limits.max_connections - limits.reserved
    sum_text = f"{limits.pool_size} × {len(users)} databases × {limits.poolers} poolers = {servers}"
    text, fitting = f"{sum_text} > {_room_text(limits)}", str(room // (len(users) * limits.poolers))
    yield None if servers <= room else Breach("pooler → postgresql", text, "database.pool_size", fitting)
    wanted, most = _clients(platform, users, "max"), limits.max_client_connections
    severity: Severity = "critical" if _clients(platform, users, "min") > most else "error"
    text = f"Σ (max replicas + {SURGE}) × pool = {wanted} > {most} clients of one pooler"
    field = "database.max_client_connections, or a service's connection_pool"
    found = Breach("services → pooler", text, field, str(wanted), severity=severity)
    yield None if wanted <= most else found


def _room_text(limits: DatabaseLimits) -> str:
    room = limits.max_connections - limits.reserved
    return f"{limits.max_connections} − {limits.reserved} reserved = {room}"


def _clients(platform: Platform, users: list[Service], bound: Bound) -> int:
    return sum(_pods(platform, service, bound) * service.connection_pool for service in users)


def compute(platform: Platform) -> Iterator[Breach | None]:
    """Compare the CPU, memory and pods of all workloads at maximum plus surge with the quotas and the node pool."""
    pool = platform.environment.settings.node_pool
    for namespace, demands in _by_namespace(platform).items():
        counts = [(demand, demand.pods) for demand in demands]
        yield from _beyond_quota(platform, namespace, counts, AT_MOST)
    everything = sum((demand.each.times(demand.pods) for demand in rendered(platform).demands), Amounts())
    for amount, asked, there in (
        ("cpu", everything.cpu_requests, pool.cpu),
        ("memory", everything.memory_requests, pool.memory),
    ):
        text = f"Σ ({AT_MOST}) × requests.{amount} = {asked} > {pool.nodes} nodes × {there} = {there * pool.nodes}"
        setting, fitting = path_of("node_pool"), f"nodes: {-(-asked.units // there.units)}"
        found = Breach("platform → node_pool", text, f"{setting}.nodes or {setting}.{amount}", fitting)
        yield found if asked.units > (there * pool.nodes).units else None


def rollouts(platform: Platform) -> Iterator[Breach | None]:
    """Compare each namespace with its quota while all Deployments roll out. Surge and stopping pods count too."""
    for namespace, found in _by_namespace(platform).items():
        if any(demand.stopping for demand in found):
            counts = [(demand, demand.pods + demand.stopping) for demand in found]
            yield from _beyond_quota(platform, namespace, counts, ROLLING)


def _by_namespace(platform: Platform) -> dict[str, list[Demand]]:
    by_namespace = defaultdict(list)
    for demand in rendered(platform).demands:
        by_namespace[demand.namespace].append(demand)
    return by_namespace


def _beyond_quota(
    platform: Platform, namespace: str, counts: list[tuple[Demand, int]], counted: str
) -> Iterator[Breach | None]:
    profile = platform.environment.profile
    quota = profile.quotas[namespace]
    asked = sum((demand.each.times(pods) for demand, pods in counts), Amounts())
    for amount, wanted, there in (
        ("cpu_requests", asked.cpu_requests, quota.cpu_requests),
        ("memory_requests", asked.memory_requests, quota.memory_requests),
        ("cpu_limits", asked.cpu_limits, quota.cpu_limits),
        ("memory_limits", asked.memory_limits, quota.memory_limits),
        ("pods", sum(pods for _, pods in counts), quota.pods),
    ):
        text = f"Σ ({counted}) × {amount} = {wanted} > {there}"
        field = f"quotas[{namespace!r}].{amount} of profile {profile.name}"
        found = Breach(f"{namespace} → quota.{amount}", text, field, str(wanted))
        yield found if _units(wanted) > _units(there) else None


def _units(measured: Cpu | Bytes | int) -> int:
    return measured if isinstance(measured, int) else measured.units


RULES = (
    Rule(
        id="D01",
        title="connection pools fit the database",
        severity="error",
        rationale="a scaled-out service takes the last connections, and then every service fails its requests",
        source="PostgreSQL, SQLAlchemy and HikariCP documentation",
        violates="(4 replicas + 1) × a pool of 10 = 50 clients at a server with room for 47",
        holds="the same clients at a server with room for 50",
        check=connections,
    ),
    Rule(
        id="D02",
        title="resource requests at maximum replicas fit the quota and the node pool",
        severity="error",
        rationale="at peak load the autoscaler asks for pods that the quota refuses or that no node has room for",
        source="the rendered ResourceQuota",
        violates="(4 replicas + 1) × 100m = 500m of CPU in a namespace with a quota of 400m",
        holds="the same pods with a quota of 500m",
        check=compute,
    ),
    Rule(
        id="H03",
        title="rollouts at maximum replicas fit the quota, pods that are still stopping included",
        severity="error",
        rationale="the quota refuses each new pod until an old pod is gone, and the rollout misses its deadline",
        source="kubernetes#98656",
        violates="3 replicas with a grace period of 60 s roll out in a namespace with a quota of 6 pods: 3 + 1 + 3 = 7",
        holds="the same rollout with a quota of 7 pods",
        check=rollouts,
    ),
)
