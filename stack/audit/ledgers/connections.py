"""The connections to each database: their holders, and the limits of the server and its pooler (rule D01)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.node import Dependency, InCluster, Replicas, Service
from stack.audit.ledgers.table import Cell, Column, Ledger, Table
from stack.model.platform import Platform
from stack.model.pod_demand import SURGE, Scale
from stack.model.profile import DatabaseLimits


@dataclass(frozen=True, slots=True)
class Holder:
    """A service. Each of its replicas holds a pool of connections."""

    service: Service
    replicas: Replicas

    @property
    def scale(self) -> Scale:
        """The range of replicas."""
        return Scale(self.replicas.min, self.replicas.max)

    @property
    def pool(self) -> int:
        """Connections in the pool of one replica."""
        return self.service.connection_pool

    @property
    def at_minimum(self) -> int:
        """Connections at minimum replicas during a rollout."""
        return (self.scale.minimum + SURGE) * self.pool

    @property
    def at_maximum(self) -> int:
        """Connections at maximum replicas during a rollout."""
        return (self.scale.maximum + SURGE) * self.pool


@dataclass(frozen=True, slots=True)
class Store:
    """A database with the services that connect to it."""

    name: str
    holders: tuple[Holder, ...]
    limits: DatabaseLimits | None
    """`None` for an external server: its owner sets the limits, and the model does not contain them."""

    @property
    def at_minimum(self) -> int:
        """Connections of all services at minimum replicas during a rollout."""
        return sum(holder.at_minimum for holder in self.holders)

    @property
    def at_maximum(self) -> int:
        """Connections of all services at maximum replicas during a rollout."""
        return sum(holder.at_maximum for holder in self.holders)

    @property
    def room(self) -> int | None:
        """Maximum connections of all services together. `None` if the model does not know the maximum.

        With poolers the maximum is the client limit of one pooler, because one pooler must be able to take all clients.
        """
        if self.limits is None:
            return None
        return self.limits.max_client_connections if self.limits.poolers else self.limits.room

    @property
    def of_poolers(self) -> int:
        """Maximum connections of the poolers to the server. 0 without a pooler."""
        return self.limits.pool_size * len(self.holders) * self.limits.poolers if self.limits else 0


def stores(platform: Platform) -> Iterator[Store]:
    """Every database, with the services that connect to it."""
    graph, environment = platform.graph, platform.environment
    for node in graph.nodes.values():
        if isinstance(node, Dependency) and node.database:
            callers = {edge.caller.name for edge in graph.edges_to(node)}
            holders = tuple(
                Holder(service, environment.replicas(service)) for service in graph.services if service.name in callers
            )
            deployed = any(isinstance(address, InCluster) for address in node.addresses)
            yield Store(node.name, holders, environment.profile.database if deployed else None)


def connection_ledger(platform: Platform) -> Ledger:
    """A table for each database."""
    return Ledger("connections", tuple(_table(store) for store in stores(platform) if store.holders))


COLUMNS = (
    Column("service"),
    Column("pool of a replica", ",d"),
    Column("replicas"),
    Column("minimum", ",.0f"),
    Column("expected", ",.1f"),
    Column("maximum", ",.0f"),
    Column("with surge", ",.0f"),
    Column("limit", ",d"),
)


def _table(store: Store) -> Table:
    role_limit = store.limits.role_limit if store.limits and not store.limits.poolers else None
    rows: list[tuple[Cell, ...]] = [
        (
            holder.service.name,
            holder.pool,
            f"{holder.scale.minimum}..{holder.scale.maximum}",
            *_held(holder),
            role_limit,
        )
        for holder in store.holders
    ]
    sums = map(sum, zip(*map(_held, store.holders), strict=True))
    rows.append(("total", None, "", *sums, store.room))
    return Table(f"connections to {store.name}", COLUMNS, tuple(rows), tuple(_notes(store)))


def _held(holder: Holder) -> tuple[float, float, float, float]:
    scale, pool = holder.scale, holder.pool
    return scale.minimum * pool, scale.expected * pool, scale.maximum * pool, holder.at_maximum


def _notes(store: Store) -> Iterator[str]:
    limits = store.limits
    if limits is None:
        yield "The server is external: its owner sets the limit."
    elif limits.poolers:
        yield (
            f"The services connect to the poolers. The poolers open at most "
            f"{limits.poolers} poolers × {len(store.holders)} databases × {limits.pool_size} connections = "
            f"{store.of_poolers} connections to the server. "
            f"The server admits {limits.room_text} connections."
        )
    else:
        yield (
            "The limit of a service is the connection limit of its database role. "
            f"The server admits {limits.room_text} connections."
        )
