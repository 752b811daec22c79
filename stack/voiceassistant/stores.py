"""The stores of the catalogue, as the tiers know them that deploy, fill and show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.network_policy import Peer
from components.node import Caller, Dependency, Host, InCluster
from components.postgresql.databases import ServiceDatabase
from components.secret_keys import SecretKeys
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.microservices import caller_secret
from stack.voiceassistant.catalog import dependencies
from stack.voiceassistant.targets import SITE

SCHEMAS = "schemas"
"""The jobs that make tables: a component of their own, since they begin when the server is ready."""


@dataclass(frozen=True, slots=True)
class Store:
    """A declared store with its address in the cluster, and its callers."""

    dependency: Dependency
    address: InCluster
    callers: tuple[Caller, ...]

    @property
    def pods(self) -> Peer:
        """The pods behind its address, without ports."""
        return self.endpoint.model_copy(update={"ports": ()})

    @property
    def endpoint(self) -> Peer:
        """The pods behind its address, on its port."""
        address = self.address
        return Peer(namespace=address.namespace, name=address.service, ports=(address.port,), label=address.label)

    @property
    def url(self) -> str:
        """Its address over HTTP."""
        return f"http://{SITE.host(self.address.service, self.address.namespace)}:{self.address.port}"

    def secret(self, caller: Caller, *, pair: bool = False) -> SecretKeys:
        """The secret of one caller; as a `pair` it holds the user's name too."""
        return caller_secret(caller, self.dependency, username=caller.name if pair else None)


def store(graph: CallGraph, name: str) -> Store | None:
    """The store of that name; `None` where the graph has none in the cluster."""
    dependency = graph.dependency(name)
    addresses = dependency.addresses if dependency else ()
    address = next((found for found in addresses if isinstance(found, InCluster)), None)
    if dependency is None or address is None:
        return None
    callers = {edge.caller.name: edge.caller for edge in graph.edges_to(dependency)}
    return Store(dependency, address, tuple(callers.values()))


def postgresql(graph: CallGraph) -> Store | None:
    """The system of record."""
    return store(graph, dependencies.POSTGRESQL.name)


def full_text_index(graph: CallGraph) -> Store | None:
    """The index that services search in, and that keeps logs and Jaeger's traces."""
    return store(graph, dependencies.ELASTICSEARCH.name)


def backup_store() -> Host:
    """The object store, which is outside the cluster."""
    (address,) = (address for address in dependencies.OBJECT_STORAGE.addresses if isinstance(address, Host))
    return address


def keeps_traces(environment: Environment) -> bool:
    """Whether Jaeger keeps its traces in the index: its replicas share them, while a single one has them in memory."""
    return environment.server("jaeger").replicas > 1


def schema_users(database: Store | None) -> Iterator[Caller]:
    """Callers of PostgreSQL that publish or consume events, or coordinate sagas."""
    for caller in database.callers if database else ():
        if any(operation.publishes or operation.consumes or operation.saga for operation in caller.operations):
            yield caller


def database_of(caller: Caller, store: Store, environment: Environment, *, pair: bool = False) -> ServiceDatabase:
    """The database of one caller; as a `pair` its secret holds the role's name too."""
    return ServiceDatabase(
        name=caller.name,
        secret=store.secret(caller, pair=pair),
        connection_limit=environment.profile.database.role_limit,
    )
