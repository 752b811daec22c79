"""Compares the environments in tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from components.node import Replicas
from stack.model.platform import Platform
from stack.output.markdown import filled

NONE = "–"
"""A cell without a value."""


def comparison(platforms: Sequence[Platform]) -> str:
    """The text of `docs/environments-compared.md`. Each table has a column for each environment."""
    tables = {
        "Cluster and settings": _rows(platforms, _settings),
        "Replicas of services": _rows(platforms, _services),
        "Servers: replicas, and the requests and volume of each replica": _rows(platforms, _servers),
        "Retention of telemetry": _rows(
            platforms, lambda each: {k: str(v) for k, v in each.environment.profile.retentions.items()}
        ),
    }
    return filled("environments-compared.md.j2", names=[each.environment.name for each in platforms], tables=tables)


def _rows(platforms: Sequence[Platform], cells: Callable[[Platform], Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """The rows of a table, in the order in which their names first appear in the environments."""
    columns = [cells(platform) for platform in platforms]
    return [
        (name, [column.get(name, NONE) for column in columns]) for name in dict.fromkeys(n for c in columns for n in c)
    ]


def _settings(platform: Platform) -> Mapping[str, str]:
    settings, profile = platform.environment.settings, platform.environment.profile
    pool, backups = settings.node_pool, settings.backups
    return {
        "profile": profile.name,
        "nodes": f"{pool.nodes}, zones: {pool.zones}, each node {pool.cpu} CPU and {pool.memory}",
        "gateway host": settings.gateway_host or NONE,
        "load balancer": _yes_or_no(value=profile.load_balancer),
        "mesh": _yes_or_no(value=settings.mesh),
        "log level": settings.log_level,
        "traces kept": str(settings.trace_sample_ratio),
        "metrics kept": f"{settings.metrics.retention}, {settings.metrics.storage}",
        "alerts are sent": _yes_or_no(value=settings.notifications is not None),
        "backups": f"bucket {backups.bucket}, {backups.retention}" if backups else "dumps on a volume",
        "data is protected": _yes_or_no(value=profile.protects_data),
        "findings stop a deployment": _yes_or_no(value=profile.strict),
        "load, as a share of the declared load": f"{profile.load_share:.0%}",
    }


def _yes_or_no(*, value: bool) -> str:
    return "yes" if value else "no"


def _services(platform: Platform) -> Mapping[str, str]:
    environment = platform.environment
    return {service.name: _range(environment.replicas(service)) for service in platform.graph.services}


def _servers(platform: Platform) -> Mapping[str, str]:
    return dict(_sizes(platform))


def _sizes(platform: Platform) -> Iterator[tuple[str, str]]:
    agents = _node_agents(platform)
    for name, size in sorted(platform.environment.profile.servers.items()):
        replicas = "1 per node" if name in agents else _range(size.scale)
        volume = f", {size.storage}" if size.storage else ""
        yield name, f"{replicas} × {size.sizing.cpu_request} CPU, {size.sizing.memory_request}{volume}"


def _node_agents(platform: Platform) -> set[str]:
    """Names of the DaemonSets. A DaemonSet has a pod on each node."""
    resources = (resource for _, found in platform.resources for resource in found)
    return {resource["metadata"]["name"] for resource in resources if resource["kind"] == "DaemonSet"}


def _range(replicas: Replicas) -> str:
    return str(replicas.min) if replicas.fixed else f"{replicas.min} to {replicas.max}"
