"""D01, D02, H03: connections and resource requests fit the capacity at maximum replicas and during rollouts."""

from __future__ import annotations

from collections.abc import Iterator

from components.node import Service
from stack.audit.finding import Breach, Rule, Severity
from stack.audit.ledgers.capacity import NODE_POOL, Room, rooms
from stack.audit.ledgers.connections import Holder, Store, stores
from stack.model.platform import Platform
from stack.model.pod_demand import SURGE
from stack.model.profile import DatabaseLimits
from stack.model.settings import path_of

AT_MOST = f"max replicas + {SURGE}"
"""Largest number of running pods during a rollout, as text in findings."""
ROLLING = f"max replicas + {SURGE} + stopping"
"""Largest number of running and stopping pods during a rollout, as text in findings."""


def connections(platform: Platform) -> Iterator[Breach | None]:
    """Compare the connections of all services at maximum replicas with the limits of the pooler or the server."""
    for store in stores(platform):
        if store.holders and store.limits:
            yield from (_without_pool(holder.service) for holder in store.holders if not holder.pool)
            yield from (_pooled if store.limits.poolers else _direct)(store, store.limits)


def _without_pool(service: Service) -> Breach:
    text = "the service calls a database, but its pool has 0 connections"
    return Breach(f"{service.name} → pool", text, f"{service.name}.connection_pool", "5", service.location)


def _direct(store: Store, limits: DatabaseLimits) -> Iterator[Breach | None]:
    """Without a pooler: compare each service's connections with its role's limit, and all with the server's limit."""
    for holder in store.holders:
        yield None if holder.at_maximum <= limits.role_limit else _over_role(holder, limits)
    wanted = store.at_maximum
    text = f"Σ ({AT_MOST}) × pool = {wanted} > {limits.room_text}"
    field = "database.max_connections, or a service's connection_pool"
    severity = _severity(store.at_minimum, limits.room)
    found = Breach("services → postgresql", text, field, str(wanted), severity=severity)
    yield None if wanted <= limits.room else found


def _severity(at_minimum: int, most: int) -> Severity:
    """Critical if the connections at minimum replicas exceed the limit already."""
    return "critical" if at_minimum > most else "error"


def _over_role(holder: Holder, limits: DatabaseLimits) -> Breach:
    name, wanted = holder.service.name, holder.at_maximum
    text = f"({AT_MOST}) × pool = {wanted} > {limits.role_limit} connections of the service's role"
    field = f"replicas.{name}, {name}.connection_pool, or database.pool_size"
    severity = _severity(holder.at_minimum, limits.role_limit)
    return Breach(f"{name} → postgresql", text, field, str(wanted), severity=severity)


def _pooled(store: Store, limits: DatabaseLimits) -> Iterator[Breach | None]:
    """Compare the poolers' connections with PostgreSQL's limit, and the services' connections with a pooler's limit."""
    databases, servers = len(store.holders), store.of_poolers
    sum_text = f"{limits.pool_size} × {databases} databases × {limits.poolers} poolers = {servers}"
    text, fitting = f"{sum_text} > {limits.room_text}", str(limits.room // (databases * limits.poolers))
    yield None if servers <= limits.room else Breach("pooler → postgresql", text, "database.pool_size", fitting)
    wanted, most = store.at_maximum, limits.max_client_connections
    text = f"Σ ({AT_MOST}) × pool = {wanted} > {most} clients of one pooler"
    field = "database.max_client_connections, or a service's connection_pool"
    found = Breach("services → pooler", text, field, str(wanted), severity=_severity(store.at_minimum, most))
    yield None if wanted <= most else found


def compute(platform: Platform) -> Iterator[Breach | None]:
    """Compare quotas and node pool with the CPU, memory and pods of all workloads at maximum replicas plus surge."""
    for room in rooms(platform):
        if room.fits(room.asked.with_surge):
            yield None
        elif room.place == NODE_POOL:
            yield _beyond_nodes(platform, room)
        else:
            yield _beyond_quota(platform, room, room.asked.with_surge, AT_MOST)


def rollouts(platform: Platform) -> Iterator[Breach | None]:
    """Compare each namespace with its quota while all Deployments roll out. Surge and stopping pods count too."""
    for room in rooms(platform):
        if room.place != NODE_POOL and room.pods_stop:
            fits = room.fits(room.asked.with_stopping)
            yield None if fits else _beyond_quota(platform, room, room.asked.with_stopping, ROLLING)


def _beyond_nodes(platform: Platform, room: Room) -> Breach:
    pool, amount = platform.environment.settings.node_pool, room.amount.removesuffix("_requests")
    each = pool.cpu if amount == "cpu" else pool.memory
    asked = room.measure(room.asked.with_surge)
    text = f"Σ ({AT_MOST}) × requests.{amount} = {asked} > {pool.nodes} nodes × {each} = {room.measure(room.limit)}"
    setting, fitting = path_of("node_pool"), f"nodes: {-(-round(room.asked.with_surge) // each.units)}"
    return Breach("platform → node_pool", text, f"{setting}.nodes or {setting}.{amount}", fitting)


def _beyond_quota(platform: Platform, room: Room, asked: float, counted: str) -> Breach:
    wanted, there = room.measure(asked), room.measure(room.limit)
    text = f"Σ ({counted}) × {room.amount} = {wanted} > {there}"
    field = f"quotas[{room.place!r}].{room.amount} of profile {platform.environment.profile.name}"
    return Breach(f"{room.place} → quota.{room.amount}", text, field, str(wanted))


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
        rationale="the quota refuses each new pod until an old pod has stopped, and the rollout misses its deadline",
        source="kubernetes#98656",
        violates="3 replicas with a grace period of 60 s roll out in a namespace with a quota of 6 pods: 3 + 1 + 3 = 7",
        holds="the same rollout with a quota of 7 pods",
        check=rollouts,
    ),
)
