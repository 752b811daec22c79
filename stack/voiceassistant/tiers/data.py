"""The data tier: PostgreSQL, cache, event streams and Consul.

A store has an account for each service that declares a call to it, and for no other service.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.component import Component
from components.consul.catalogue import CatalogueService
from components.consul.servers import GOSSIP_PORT, HTTP_PORT, RPC_PORT, Consul
from components.links import Link, Links
from components.network_policy import AddressBlock, Peer
from components.node import Caller, Service
from components.observability.store_exporters import VALKEY_ACCOUNT, VALKEY_RULES
from components.postgresql.cluster import PostgresqlCluster
from components.postgresql.databases import ServerLimits
from components.postgresql.server import PostgresqlServer
from components.valkey.access import AclUser
from components.valkey.replicated import ReplicatedValkey
from components.valkey.replication import SENTINEL_PORT
from components.valkey.server import PORT, Valkey
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.tenant import Builder
from stack.voiceassistant import site
from stack.voiceassistant.catalog import dependencies
from stack.voiceassistant.catalog.models import BUDGETS
from stack.voiceassistant.stores import (
    SCHEMAS,
    DeployedStore,
    Store,
    backup_store,
    database_of,
    deployed_store,
    postgresql,
    schema_users,
)

CACHE_COMMANDS = "+@read +@write +@connection +@transaction +@scripting +time -@dangerous"
"""Commands that a caller may run on its own keys: its entries in the cache, and its counters of token budgets.
Scripts of distributed limits need `time`, which none of these categories contains."""
GATEWAY_KEYS = "plugin-limit-count*"
"""Keys of the gateway's rate-limit counters. APISIX's plugin chooses the prefix."""
PUBLISH = "+xadd"
APPEND = "+xadd +eval +evalsha"
"""Commands that append usage events. A script may run only the commands that its user may run outside a script."""
CONSUME = "+xreadgroup +xgroup|create +xgroup|delconsumer +xack +xclaim +xautoclaim +xpending +xinfo|consumers +xlen"
DEAD_LETTERS = ".dead-letters"
"""Suffix of the stream for messages that a consumer could not handle, as in voice_saga."""

OPERATOR = Peer(namespace="cnpg-system", name="cloudnative-pg", ports=())
POSTGRESQL_PORT, STATUS_PORT = 5432, 8000
"""Ports of CloudNativePG's instances: the database, and the status that the operator reads."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """PostgreSQL, cache and event streams, if they run in the cluster, and Consul's servers."""
    if database := deployed_store(graph, dependencies.POSTGRESQL.name):
        yield partial(_postgresql, database, environment, links)
    if cache := deployed_store(graph, dependencies.REDIS.name):
        yield partial(_cache, cache, environment, links)
    if events := deployed_store(graph, dependencies.EVENTS.name):
        yield partial(_events, events, environment, links)
    yield partial(_consul, graph, environment, links)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """The links of the tier's own pods: replication, operator, backups, schemas, scrapes."""
    servers = Peer(namespace=site.DATA, name="consul", ports=())
    gossip = servers.model_copy(update={"ports": (RPC_PORT, GOSSIP_PORT), "udp_ports": (GOSSIP_PORT,)})
    yield Link(servers, gossip)
    yield scrape_link(graph.site, servers, Consul.scrape)
    cache, events = (deployed_store(graph, each.name) for each in (dependencies.REDIS, dependencies.EVENTS))
    # Valkey serves no metrics, so these links are for probes by the prober.
    for found in filter(None, (cache, events)):
        yield scrape_link(graph.site, found.pods, Valkey.scrape)
    if cache and environment.server(cache.dependency.name).replicas > 1:
        yield from _cache_links(cache)
    if database := postgresql(graph):
        yield from _postgresql_links(database, environment)
    if backups := environment.settings.backups:
        snapshots = servers.model_copy(update={"name": "consul-snapshot"})
        yield Link(snapshots, servers.model_copy(update={"ports": (HTTP_PORT,)}))
        yield Link(snapshots, AddressBlock(name="backup-store", cidr=backups.network, ports=(backup_store().port,)))


def _postgresql_links(database: Store, environment: Environment) -> Iterator[Link]:
    """The links of PostgreSQL: of the operator's instances and poolers, or of one server if there are no `backups`.

    An external database has only the link of the schema jobs.
    """
    if any(schema_users(database)):
        yield Link(Peer(namespace=site.DATA, name=SCHEMAS, ports=()), database.endpoint)
    if not isinstance(database, DeployedStore):
        return
    backups = environment.settings.backups
    if backups is None:
        for job in ("postgresql-roles", "postgresql-backup"):
            yield Link(Peer(namespace=site.DATA, name=job, ports=()), database.endpoint)
        yield scrape_link(site.SITE, database.pods, PostgresqlServer.scrape)
        return
    pooler, instances = database.pods, database.pods.model_copy(update={"name": "postgresql"})
    server_and_status = instances.model_copy(update={"ports": (POSTGRESQL_PORT, STATUS_PORT)})
    yield Link(instances, server_and_status)
    yield Link(OPERATOR, server_and_status)
    yield Link(pooler, instances.model_copy(update={"ports": (POSTGRESQL_PORT,)}))
    yield scrape_link(site.SITE, instances, PostgresqlCluster.instance_scrape)
    yield scrape_link(site.SITE, pooler, PostgresqlCluster.pooler_scrape)
    api = environment.settings.api_server
    for manager in (instances, pooler):
        yield Link(manager, AddressBlock(name="kubernetes-api", cidr=api.cidr, ports=(api.port,)))
    yield Link(instances, AddressBlock(name="backup-store", cidr=backups.network, ports=(backup_store().port,)))


def _cache_links(cache: DeployedStore) -> Iterator[Link]:
    """Proxies, servers and Sentinels connect to the servers.

    Servers and Sentinels also ask the Sentinels for the primary.
    """
    proxies = cache.pods
    servers = proxies.model_copy(update={"name": f"{proxies.name}-node"})
    sentinels = proxies.model_copy(update={"name": f"{proxies.name}-sentinel"})
    for source in (proxies, servers, sentinels):
        yield Link(source, servers.model_copy(update={"ports": (PORT,)}))
    yield scrape_link(site.SITE, servers, Valkey.scrape)
    for source in (servers, sentinels):
        yield Link(source, sentinels.model_copy(update={"ports": (SENTINEL_PORT,)}))
    yield scrape_link(site.SITE, sentinels, ReplicatedValkey.sentinel_scrape)


def _postgresql(database: DeployedStore, environment: Environment, links: Links) -> Component:
    address, declared = database.address, environment.profile.database
    limits = ServerLimits(max_connections=declared.max_connections, reserved=declared.reserved)
    size = environment.server("postgresql")
    backups = environment.settings.backups
    pair = backups is not None
    databases = tuple(database_of(caller, database, environment, pair=pair) for caller in database.callers)
    if backups is None:
        return PostgresqlServer(
            name="postgresql",
            namespace=site.DATA,
            service=address.service,
            store_label=address.label,
            image=environment.third_party_image(images.POSTGRESQL),
            sizing=size.sizing,
            storage=size.volume,
            storage_class=size.storage_class,
            limits=limits,
            databases=databases,
            links=links,
        )
    return PostgresqlCluster(
        name="postgresql",
        namespace=site.DATA,
        pooler=address.service,
        store_label=address.label,
        image=environment.third_party_image(images.POSTGRESQL_OPERAND),
        pooler_image=environment.third_party_image(images.PGBOUNCER),
        instances=size.replicas,
        sizing=size.sizing,
        storage=size.volume,
        storage_class=size.storage_class,
        limits=limits,
        databases=databases,
        poolers=declared.poolers,
        pool_size=declared.pool_size,
        max_client_connections=declared.max_client_connections,
        backups=backups,
        store_url=f"https://{backup_store().host}",
        links=links,
    )


def _consul(graph: CallGraph, environment: Environment, links: Links) -> Consul:
    backups = environment.settings.backups
    size = environment.server("consul")
    return Consul(
        name="consul",
        namespace=site.DATA,
        image=environment.third_party_image(images.CONSUL),
        sizing=size.sizing,
        servers=size.replicas,
        storage=size.volume,
        storage_class=size.storage_class,
        services=tuple(_catalogue_service(service) for service in graph.services),
        links=links,
        bucket_url=f"https://{backup_store().host}/{backups.bucket}" if backups else None,
    )


def _catalogue_service(service: Service) -> CatalogueService:
    return CatalogueService(
        name=service.name,
        grpc_host=site.SITE.grpc_host(service),
        grpc_port=service.grpc_port,
        http_host=site.SITE.http_host(service),
        http_port=service.http_port,
    )


def _cache(cache: DeployedStore, environment: Environment, links: Links) -> Component:
    users = tuple(
        AclUser(name=caller.name, secret=cache.secret(caller), rules=f"~{_keys(caller)} {CACHE_COMMANDS}")
        for caller in cache.callers
    )
    size = environment.server(cache.dependency.name)
    users += tuple(_metrics_users(environment))
    if size.replicas == 1:
        return _valkey(cache, environment, links, users)
    name = cache.address.service
    return ReplicatedValkey(
        name=name,
        namespace=site.DATA,
        image=environment.third_party_image(images.VALKEY),
        proxy_image=environment.third_party_image(images.HAPROXY),
        nodes=size.replicas,
        sizing=size.sizing,
        users=users,
        links=links,
    )


def _keys(caller: Caller) -> str:
    return f"{caller.name}:*" if isinstance(caller, Service) else GATEWAY_KEYS


def _events(events: DeployedStore, environment: Environment, links: Links) -> Valkey:
    users = tuple(
        AclUser(name=caller.name, secret=events.secret(caller), rules=_stream_rules(caller))
        for caller in events.callers
    )
    return _valkey(events, environment, links, (*users, *_metrics_users(environment)))


def _metrics_users(environment: Environment) -> Iterator[AclUser]:
    """The exporter's user, in environments with an exporter."""
    if environment.deploys(site.VALKEY_EXPORTER):
        yield AclUser(name=VALKEY_ACCOUNT.user, secret=VALKEY_ACCOUNT.secret, rules=VALKEY_RULES)


def _stream_rules(caller: Caller) -> str:
    """ACL rules for the streams of a service's declared events, and for its counters of token budgets.

    On streams the service may run only the commands for publishing, appending or consuming.
    """
    published = {event for operation in caller.operations for event in operation.publishes}
    appended = {event for operation in caller.operations for event in operation.appends}
    consumed = {event for operation in caller.operations for event in operation.consumes}
    streams = " ".join(f"~{event}" for event in sorted(published | appended | consumed))
    needed = ((PUBLISH, published), (APPEND, appended), (CONSUME, consumed))
    commands = [commands for commands, events in needed if events]
    dead_letters = " ".join(f"~{event}{DEAD_LETTERS}" for event in sorted(consumed))
    selector = f" ({dead_letters} {PUBLISH})" if consumed else ""
    if any(call.name == BUDGETS for operation in caller.operations for call in operation.calls):
        selector += f" (~{_keys(caller)} {CACHE_COMMANDS})"
    return f"{streams} +@connection -@dangerous {' '.join(commands)}{selector}"


def _valkey(found: DeployedStore, environment: Environment, links: Links, users: tuple[AclUser, ...]) -> Valkey:
    address, size = found.address, environment.server(found.dependency.name)
    return Valkey(
        name=address.service,
        namespace=address.namespace,
        image=environment.third_party_image(images.VALKEY),
        sizing=size.sizing,
        users=users,
        links=links,
        storage=size.storage,
        storage_class=size.storage_class,
    )
