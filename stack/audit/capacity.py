"""D01, D02: what is asked for at the most fits what there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from voice_policies import Bytes, Cpu

from components.node import Service
from stack.audit.finding import Finding, Rule, Severity
from stack.policy_bundles import APPS
from stack.topology import Platform

SURGE = 1
"""Pods that a rollout adds to one Deployment (`maxSurge`)."""
Bound = Literal["min", "max"]


def _pods(platform: Platform, service: Service, bound: Bound) -> int:
    replicas = platform.environment.replicas(service)
    return (replicas.min if bound == "min" else replicas.max) + SURGE


def connections(platform: Platform) -> Iterator[Finding | None]:
    """Connections through the pooler: its servers within PostgreSQL's limit, its clients within its own."""
    limits = platform.environment.database
    users = [service for service in platform.graph.services if service.connection_pool]
    if not users:
        return
    room = limits.max_connections - limits.reserved
    servers = limits.pool_size * len(users) * limits.poolers
    sum_text = f"{limits.pool_size} × {len(users)} databases × {limits.poolers} poolers = {servers}"
    yield (
        None
        if servers <= room
        else Finding(
            "D01",
            "error",
            "pooler → postgresql",
            f"{sum_text} > {limits.max_connections} − {limits.reserved} reserved = {room}",
            "database.pool_size",
            str(room // (len(users) * limits.poolers)),
        )
    )
    wanted = _clients(platform, users, "max")
    severity: Severity = "critical" if _clients(platform, users, "min") > limits.max_client_connections else "error"
    yield (
        None
        if wanted <= limits.max_client_connections
        else Finding(
            "D01",
            severity,
            "services → pooler",
            f"Σ (max replicas + {SURGE}) × pool = {wanted} > {limits.max_client_connections} clients of one pooler",
            "database.max_client_connections, or a service's connection_pool",
            str(wanted),
        )
    )


def _clients(platform: Platform, users: list[Service], bound: Bound) -> int:
    return sum(_pods(platform, service, bound) * service.connection_pool for service in users)


def compute(platform: Platform) -> Iterator[Finding | None]:
    """CPU, memory and pods of every service at its maximum plus surge, against the quota and the node pool."""
    environment = platform.environment
    pool, quota = environment.settings.node_pool, environment.quotas[APPS]
    cpu, memory = Cpu("0"), Bytes("0")
    cpu_limits, memory_limits, pods = Cpu("0"), Bytes("0"), 0
    for service in platform.graph.services:
        count, sizing = _pods(platform, service, "max"), environment.sizing(service)
        cpu += sizing.cpu_request * count
        memory += sizing.memory_request * count
        cpu_limits += sizing.cpu_limit * count
        memory_limits += sizing.memory_limit * count
        pods += count
    yield _exceeds("requests.cpu", cpu, quota.cpu_requests, "quota")
    yield _exceeds("requests.memory", memory, quota.memory_requests, "quota")
    yield _exceeds("limits.cpu", cpu_limits, quota.cpu_limits, "quota")
    yield _exceeds("limits.memory", memory_limits, quota.memory_limits, "quota")
    yield None if pods <= quota.pods else _over("pods", str(pods), str(quota.pods), "quota")
    yield _exceeds("requests.cpu", cpu, pool.cpu * pool.nodes, "node_pool")
    yield _exceeds("requests.memory", memory, pool.memory * pool.nodes, "node_pool")


def _exceeds(what: str, asked: Cpu | Bytes, there: Cpu | Bytes, field: str) -> Finding | None:
    return None if asked.units <= there.units else _over(what, str(asked), str(there), field)


def _over(what: str, asked: str, there: str, field: str) -> Finding:
    arithmetic = f"Σ (max replicas + {SURGE}) × {what} = {asked} > {there}"
    return Finding("D02", "error", f"services → {field}", arithmetic, f"{field}.{what}", asked)


RULES = (
    Rule("D01", "connection pools fit the database", "PostgreSQL, SQLAlchemy and HikariCP documentation", connections),
    Rule("D02", "requests at the maximum fit quota and node pool", "the ResourceQuota that is rendered", compute),
)
