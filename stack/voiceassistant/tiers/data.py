"""The data tier: PostgreSQL, cache, event streams and Consul, each admitting exactly its declared callers."""

from __future__ import annotations

from collections.abc import Iterator

from components import images
from components.component import Component
from components.consul.access import SECRET
from components.consul.catalogue import CatalogueService
from components.consul.servers import GOSSIP_PORT, HTTP_PORT, RPC_PORT, Consul
from components.consul.snapshots import CREDENTIALS as SNAPSHOT_CREDENTIALS
from components.network_policy import AddressBlock, Peer
from components.node import Dependency, Host, InCluster, Node, Service
from components.postgresql.backups import CREDENTIALS
from components.postgresql.cluster import PostgresqlCluster
from components.postgresql.databases import ServerLimits, ServiceDatabase
from components.postgresql.dumps import DUMP_KEY
from components.postgresql.server import SUPERUSER_SECRET, PostgresqlServer
from components.secret_keys import SecretKeys
from components.valkey.access import AclUser
from components.valkey.replicated import SECRET as REPLICATION_SECRET
from components.valkey.replicated import SENTINEL_PORT, ReplicatedValkey
from components.valkey.server import PORT, Valkey
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import Link, Links, scrape_link
from stack.model.microservices import caller_secret
from stack.model.site import Site
from stack.voiceassistant import targets
from stack.voiceassistant.catalog import dependencies

CACHE_COMMANDS = "+@read +@write +@connection +@transaction +@scripting +time -@dangerous"
"""Distributed limits go by the server's time, which Valkey counts among neither the reads nor the dangerous."""
GATEWAY_KEYS = "plugin-limit-count*"
"""The gateway's rate-limit counters, named by its plugin."""
PUBLISH = "+xadd"
CONSUME = "+xreadgroup +xgroup|create +xack +xautoclaim +xpending +xlen"

SCHEMAS = "schemas"
"""The jobs that make tables: a tier of their own, since they begin when the server is there."""
OPERATOR = Peer(namespace="cnpg-system", name="cloudnative-pg", ports=())
POSTGRESQL_PORT, STATUS_PORT = 5432, 8000
INSTANCE_METRICS, POOLER_METRICS = 9187, 9127
"""Ports of CloudNativePG's instance manager and of its pooler."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Component]:
    """PostgreSQL, the cache, the events: each where something calls it."""
    stores = ((dependencies.POSTGRESQL, _postgresql), (dependencies.REDIS, _cache), (dependencies.EVENTS, _events))
    for dependency, build in stores:
        if graph.nodes.get(dependency.name) == dependency:
            yield build(graph, environment, links)
    yield _consul(graph, environment, links)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """What the tier's pods need among themselves and outside: replication, operator, scrapes, backups, schemas."""
    servers = Peer(namespace=targets.DATA, name="consul", ports=())
    gossip = servers.model_copy(update={"ports": (RPC_PORT, GOSSIP_PORT), "datagrams": (GOSSIP_PORT,)})
    yield Link(source=servers, target=gossip)
    yield from _probe_links(graph, servers)
    backups = environment.settings.backups
    address = _address(dependencies.POSTGRESQL)
    server = Peer(namespace=address.namespace, name=address.service, ports=(address.port,), label=address.label)
    if any(schema_users(graph)):
        yield Link(source=Peer(namespace=targets.DATA, name=SCHEMAS, ports=()), target=server)
    if backups is None:
        yield Link(source=Peer(namespace=targets.DATA, name="postgresql-backup", ports=()), target=server)
        yield scrape_link(graph.site, server, PostgresqlServer.scrape)
        return
    instances = Peer(namespace=targets.DATA, name="postgresql", ports=(), label=targets.STORE_LABEL)
    pooler = instances.model_copy(update={"name": _address(dependencies.POSTGRESQL).service})
    server_and_status = instances.model_copy(update={"ports": (POSTGRESQL_PORT, STATUS_PORT)})
    yield Link(source=instances, target=server_and_status)
    yield from _cache_links(graph.site)
    yield Link(source=OPERATOR, target=server_and_status)
    yield Link(source=pooler, target=instances.model_copy(update={"ports": (POSTGRESQL_PORT,)}))
    yield scrape_link(graph.site, instances, PostgresqlCluster.instance_scrape)
    yield scrape_link(graph.site, pooler, PostgresqlCluster.pooler_scrape)
    api = environment.settings.api_server
    for manager in (instances, pooler):
        yield Link(source=manager, target=AddressBlock(name="kubernetes-api", cidr=api.cidr, ports=(api.port,)))
    store = AddressBlock(name="backup-store", cidr=backups.network, ports=(backup_store().port,))
    yield Link(source=instances, target=store)
    snapshots = servers.model_copy(update={"name": "consul-snapshot"})
    yield Link(source=snapshots, target=servers.model_copy(update={"ports": (HTTP_PORT,)}))
    yield Link(source=snapshots, target=store)


def schema_users(graph: CallGraph) -> Iterator[Node]:
    """Callers of PostgreSQL that publish or consume events, or coordinate sagas."""
    called = graph.nodes.get(dependencies.POSTGRESQL.name) == dependencies.POSTGRESQL
    for caller in _callers(graph, dependencies.POSTGRESQL) if called else ():
        if any(operation.publishes or operation.consumes or operation.saga for operation in caller.operations):
            yield caller


def _probe_links(graph: CallGraph, servers: Peer) -> Iterator[Link]:
    """Neither Consul, whose metrics want a token, nor Valkey is scraped: the prober asks them."""
    yield scrape_link(graph.site, servers, Consul.scrape)
    for dependency in (dependencies.REDIS, dependencies.EVENTS):
        if graph.nodes.get(dependency.name) == dependency:
            pods = Peer(namespace=targets.DATA, name=_address(dependency).service, ports=())
            yield scrape_link(graph.site, pods, Valkey.scrape)


def _cache_links(site: Site) -> Iterator[Link]:
    """Proxies, servers and Sentinels ask the servers; the last two also ask the Sentinels who the primary is."""
    proxies = Peer(namespace=targets.DATA, name=_address(dependencies.REDIS).service, ports=())
    servers = proxies.model_copy(update={"name": f"{proxies.name}-node"})
    sentinels = proxies.model_copy(update={"name": f"{proxies.name}-sentinel"})
    for source in (proxies, servers, sentinels):
        yield Link(source=source, target=servers.model_copy(update={"ports": (PORT,)}))
    yield scrape_link(site, servers, Valkey.scrape)
    for source in (servers, sentinels):
        yield Link(source=source, target=sentinels.model_copy(update={"ports": (SENTINEL_PORT,)}))
    yield scrape_link(site, sentinels, ReplicatedValkey.sentinel_scrape)


def backup_store() -> Host:
    """The object store, which is outside the cluster."""
    (address,) = (address for address in dependencies.OBJECT_STORAGE.addresses if isinstance(address, Host))
    return address


def _address(dependency: Dependency) -> InCluster:
    (address,) = (address for address in dependency.addresses if isinstance(address, InCluster))
    return address


def _callers(graph: CallGraph, dependency: Dependency) -> list[Node]:
    return list({edge.caller.name: edge.caller for edge in graph.edges_to(dependency)}.values())


def _secret(caller: Node, dependency: Dependency, *, pair: bool = False) -> SecretKeys:
    """The same secret as the caller's own: one value, read at both ends."""
    return caller_secret(caller, dependency, username=caller.name if pair else None)


def _databases(graph: CallGraph, environment: Environment, *, pair: bool) -> tuple[ServiceDatabase, ...]:
    callers = _callers(graph, dependencies.POSTGRESQL)
    return tuple(database_of(caller, environment, pair=pair) for caller in callers)


def database_of(caller: Node, environment: Environment, *, pair: bool = False) -> ServiceDatabase:
    """The database of one caller; as a `pair` its secret holds the role's name too."""
    return ServiceDatabase(
        name=caller.name,
        secret=_secret(caller, dependencies.POSTGRESQL, pair=pair),
        connection_limit=environment.profile.database.role_limit,
    )


def _postgresql(graph: CallGraph, environment: Environment, links: Links) -> Component:
    address = _address(dependencies.POSTGRESQL)
    declared = environment.profile.database
    limits = ServerLimits(max_connections=declared.max_connections, reserved=declared.reserved)
    size = environment.server("postgresql")
    backups = environment.settings.backups
    if backups is None:
        databases = _databases(graph, environment, pair=False)
        return PostgresqlServer(
            name="postgresql",
            namespace=targets.DATA,
            service=address.service,
            store_label=address.label,
            image=environment.third_party_image(images.POSTGRESQL),
            sizing=size.sizing,
            storage=size.volume,
            limits=limits,
            databases=databases,
            secrets=(SUPERUSER_SECRET, DUMP_KEY, *(database.secret for database in databases)),
            ingress=links.ingress(targets.DATA, address.service),
            dump_egress=links.egress(targets.DATA, "postgresql-backup"),
        )
    databases = _databases(graph, environment, pair=True)
    return PostgresqlCluster(
        name="postgresql",
        namespace=targets.DATA,
        pooler=address.service,
        store_label=address.label,
        image=environment.third_party_image(images.POSTGRESQL_OPERAND),
        pooler_image=environment.third_party_image(images.PGBOUNCER),
        instances=size.replicas,
        sizing=size.sizing,
        storage=size.volume,
        limits=limits,
        databases=databases,
        secrets=(CREDENTIALS, *(database.secret for database in databases)),
        poolers=declared.poolers,
        pool_size=declared.pool_size,
        max_client_connections=declared.max_client_connections,
        backups=backups,
        store_url=f"https://{backup_store().host}",
        instance_ingress=links.ingress(targets.DATA, "postgresql"),
        instance_egress=links.egress(targets.DATA, "postgresql"),
        pooler_ingress=links.ingress(targets.DATA, address.service),
        pooler_egress=links.egress(targets.DATA, address.service),
    )


def _consul(graph: CallGraph, environment: Environment, links: Links) -> Consul:
    backups = environment.settings.backups
    size = environment.server("consul")
    return Consul(
        name="consul",
        namespace=targets.DATA,
        image=environment.third_party_image(images.CONSUL),
        sizing=size.sizing,
        servers=size.replicas,
        storage=size.volume,
        services=tuple(_catalogue_service(service) for service in graph.services),
        secrets=(SECRET, SNAPSHOT_CREDENTIALS) if backups else (SECRET,),
        ingress=links.ingress(targets.DATA, "consul"),
        egress=links.egress(targets.DATA, "consul"),
        bucket_url=f"https://{backup_store().host}/{backups.bucket}" if backups else None,
        snapshot_egress=links.egress(targets.DATA, "consul-snapshot"),
    )


def _catalogue_service(service: Service) -> CatalogueService:
    return CatalogueService(
        name=service.name,
        grpc_host=targets.SITE.grpc_host(service),
        grpc_port=service.grpc_port,
        http_host=targets.SITE.http_host(service),
        http_port=service.http_port,
    )


def _cache(graph: CallGraph, environment: Environment, links: Links) -> Component:
    dependency = dependencies.REDIS
    keys = {service.name: f"{service.name}:*" for service in graph.services}
    users = tuple(
        AclUser(
            name=caller.name,
            secret=_secret(caller, dependency),
            rules=f"~{keys.get(caller.name, GATEWAY_KEYS)} {CACHE_COMMANDS}",
        )
        for caller in _callers(graph, dependency)
    )
    size = environment.server(dependency.name)
    if size.replicas == 1:
        return _valkey(environment, links, dependency, users)
    name = _address(dependency).service
    return ReplicatedValkey(
        name=name,
        namespace=targets.DATA,
        image=environment.third_party_image(images.VALKEY),
        proxy_image=environment.third_party_image(images.HAPROXY),
        nodes=size.replicas,
        sizing=size.sizing,
        users=users,
        secrets=(REPLICATION_SECRET, *(user.secret for user in users)),
        ingress=links.ingress(targets.DATA, name),
        proxy_egress=links.egress(targets.DATA, name),
        node_ingress=links.ingress(targets.DATA, f"{name}-node"),
        node_egress=links.egress(targets.DATA, f"{name}-node"),
        sentinel_ingress=links.ingress(targets.DATA, f"{name}-sentinel"),
        sentinel_egress=links.egress(targets.DATA, f"{name}-sentinel"),
    )


def _events(graph: CallGraph, environment: Environment, links: Links) -> Valkey:
    dependency = dependencies.EVENTS
    users = tuple(
        AclUser(name=caller.name, secret=_secret(caller, dependency), rules=_stream_rules(caller))
        for caller in _callers(graph, dependency)
    )
    return _valkey(environment, links, dependency, users)


def _stream_rules(caller: Node) -> str:
    """The streams of the events that a service declares, and only what publishing or consuming them takes."""
    published = {event for operation in caller.operations for event in operation.publishes}
    consumed = {event for operation in caller.operations for event in operation.consumes}
    streams = " ".join(f"~{event}" for event in sorted(published | consumed))
    commands = [*([PUBLISH] if published else []), *([CONSUME] if consumed else [])]
    return f"{streams} +@connection -@dangerous {' '.join(commands)}"


def _valkey(
    environment: Environment,
    links: Links,
    dependency: Dependency,
    users: tuple[AclUser, ...],
) -> Valkey:
    address = _address(dependency)
    size = environment.server(dependency.name)
    return Valkey(
        name=address.service,
        namespace=address.namespace,
        image=environment.third_party_image(images.VALKEY),
        sizing=size.sizing,
        users=users,
        secrets=tuple(user.secret for user in users),
        ingress=links.ingress(address.namespace, address.service),
        storage=size.storage,
    )
