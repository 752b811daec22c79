"""The stores of the catalogue, for the tiers that deploy, fill and show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from components.network_policy import NetworkEnd, Peer
from components.node import Caller, Dependency, External, Host, InCluster
from components.observability.elasticsearch import TRANSPORT_PORT
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SecretKeys
from stack.model.call_graph import CallGraph
from stack.model.caller_secrets import caller_secret
from stack.model.environments import Environment
from stack.model.links import external_block
from stack.voiceassistant.catalog import dependencies
from stack.voiceassistant.site import SITE

SCHEMAS = "schemas"
"""Component of the jobs that create tables. It is separate, because the jobs start after the server is ready."""


@dataclass(frozen=True)
class Store:
    """A declared store that callers reach in the cluster or outside, and its callers."""

    dependency: Dependency
    address: InCluster | External
    callers: tuple[Caller, ...]

    @property
    def endpoint(self) -> NetworkEnd:
        """The store's pods with its port. For an external store: the store's network with this port."""
        address = self.address
        if isinstance(address, External):
            return external_block(self.dependency, address)
        return Peer(namespace=address.namespace, name=address.service, ports=(address.port,), label=address.label)

    @property
    def host(self) -> str:
        """The name that clients connect to."""
        address = self.address
        return address.host if isinstance(address, External) else SITE.host(address.service, address.namespace)

    @property
    def tls(self) -> bool:
        """True if clients connect over TLS."""
        return isinstance(self.address, External) and self.address.tls

    @property
    def url(self) -> str:
        """The store's URL, for HTTP or HTTPS."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.address.port}"

    def secret(self, caller: Caller, *, pair: bool = False) -> SecretKeys:
        """The secret of one caller. A `pair` also holds the user's name."""
        return caller_secret(caller, self.dependency, username=caller.name if pair else None)


@dataclass(frozen=True)
class DeployedStore(Store):
    """A store that the platform deploys."""

    address: InCluster

    @property
    def pods(self) -> Peer:
        """The pods behind the store's address, without ports."""
        address = self.address
        return Peer(namespace=address.namespace, name=address.service, ports=(), label=address.label)


def store(graph: CallGraph, name: str) -> Store | None:
    """The store of that name. `None` if the graph has no such store, or reaches the store through an egress proxy."""
    dependency = graph.dependency(name)
    if dependency is None:
        return None
    callers = tuple({edge.caller.name: edge.caller for edge in graph.edges_to(dependency)}.values())
    for address in dependency.addresses:
        if isinstance(address, InCluster):
            return DeployedStore(dependency, address, callers)
        if isinstance(address, External):
            return Store(dependency, address, callers)
    return None


def deployed_store(graph: CallGraph, name: str) -> DeployedStore | None:
    """The store of that name, if the platform deploys it."""
    found = store(graph, name)
    return found if isinstance(found, DeployedStore) else None


def postgresql(graph: CallGraph) -> Store | None:
    """The store PostgreSQL, the system of record."""
    return store(graph, dependencies.POSTGRESQL.name)


def full_text_index(graph: CallGraph) -> Store | None:
    """The index that services search. It also holds logs, and traces if `keeps_traces`."""
    return store(graph, dependencies.ELASTICSEARCH.name)


class ValkeyServers(NamedTuple):
    """Valkey servers of one store: their pods with the port, and their addresses as `host:port`."""

    pods: Peer
    addresses: tuple[str, ...]


def valkey_servers(graph: CallGraph, environment: Environment) -> Iterator[ValkeyServers]:
    """The deployed Valkey servers. A replicated cache has proxies, and behind them a Service for each server."""
    for dependency in (dependencies.REDIS, dependencies.EVENTS):
        if found := deployed_store(graph, dependency.name):
            replicas, name, port = environment.server(dependency.name).replicas, found.pods.name, found.address.port
            servers = name if replicas == 1 else f"{name}-node"
            names = [name] if replicas == 1 else [f"{servers}-{index}" for index in range(replicas)]
            yield ValkeyServers(
                pods=found.pods.model_copy(update={"name": servers, "ports": (port,)}),
                addresses=tuple(f"{SITE.host(each, found.pods.namespace)}:{port}" for each in names),
            )


def elasticsearch_nodes(graph: CallGraph, environment: Environment) -> tuple[str, ...]:
    """`host:port` of each deployed node that presents a certificate. A single node presents no certificate."""
    index = deployed_store(graph, dependencies.ELASTICSEARCH.name)
    nodes = environment.server(index.pods.name).replicas if index else 1
    if index is None or nodes == 1:
        return ()
    name, service = index.pods.name, SITE.host(f"{index.pods.name}-nodes", index.pods.namespace)
    return tuple(f"{name}-{number}.{service}:{TRANSPORT_PORT}" for number in range(nodes))


def backup_store() -> Host:
    """The object store outside the cluster."""
    (address,) = (address for address in dependencies.OBJECT_STORAGE.addresses if isinstance(address, Host))
    return address


def keeps_traces(environment: Environment) -> bool:
    """True if Jaeger's replicas share the index for their traces. A single replica keeps its traces in memory."""
    return environment.server("jaeger").replicas > 1


def schema_users(database: Store | None) -> Iterator[Caller]:
    """Callers of PostgreSQL that publish or consume events, or coordinate sagas."""
    for caller in database.callers if database else ():
        if any(operation.publishes or operation.consumes or operation.saga for operation in caller.operations):
            yield caller


def database_of(caller: Caller, store: Store, environment: Environment, *, pair: bool = False) -> ServiceDatabase:
    """The database of one caller. A `pair` secret also holds the role's name."""
    return ServiceDatabase(
        name=caller.name,
        secret=store.secret(caller, pair=pair),
        connection_limit=environment.profile.database.role_limit,
    )
