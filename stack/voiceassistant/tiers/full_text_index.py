"""The full-text index: Elasticsearch. Services search in it, and it stores logs and Jaeger's traces."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.links import Link, Links
from components.network_policy import Peer
from components.observability import elasticsearch, grafana, jaeger, kibana
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import (
    LOGS_PATTERN,
    OTLP_PATTERN,
    IndexUser,
    user,
)
from components.observability.setup_job import Account
from components.retention import Stream
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.tenant import Builder
from stack.voiceassistant.catalog.dependencies import ELASTICSEARCH
from stack.voiceassistant.site import COLLECTOR, ELASTICSEARCH_EXPORTER, OBSERVABILITY, PROBER_PODS
from stack.voiceassistant.stores import (
    DeployedStore,
    Store,
    deployed_store,
    elasticsearch_nodes,
    full_text_index,
    keeps_traces,
)
from stack.voiceassistant.telemetry_streams import log_stream, trace_stream

READS = ("read", "view_index_metadata")
OWNS = (*READS, "write", "create_index")
ADDS = ("create_doc", "auto_configure")


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """The index, if it runs in the cluster."""
    if index := deployed_store(graph, ELASTICSEARCH.name):
        yield partial(_elasticsearch, graph, environment, links, index)


def _elasticsearch(graph: CallGraph, environment: Environment, links: Links, index: DeployedStore) -> Elasticsearch:
    users = tuple(_users(index, environment))
    size = environment.server(index.pods.name)
    return Elasticsearch(
        name=index.pods.name,
        namespace=index.pods.namespace,
        image=environment.third_party_image(images.ELASTICSEARCH),
        sizing=size.sizing,
        nodes=size.replicas,
        storage=size.volume,
        storage_class=size.storage_class,
        streams=tuple(_streams(graph, environment)),
        users=users,
        links=links,
    )


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """Links to the index: from its setup job, its nodes, the prober, and the programs that use its data."""
    index = full_text_index(graph)
    if index is None:
        return
    clients = [*([_setup(index)] if isinstance(index, DeployedStore) else []), *map(_pods, ("grafana", COLLECTOR))]
    if keeps_traces(environment):
        clients += map(_pods, ("jaeger", "jaeger-retention"))
    if environment.deploys("kibana"):
        clients.append(_pods("kibana"))
    for client in clients:
        yield Link(client, index.endpoint)
    if not isinstance(index, DeployedStore):
        return
    yield scrape_link(graph.site, index.pods, Elasticsearch.scrape)
    if elasticsearch_nodes(graph, environment):
        nodes = index.pods.model_copy(update={"ports": (elasticsearch.TRANSPORT_PORT,)})
        yield Link(index.pods, nodes)
        yield Link(PROBER_PODS, nodes)


def _setup(index: DeployedStore) -> Peer:
    return index.pods.model_copy(update={"name": f"{index.pods.name}-setup"})


def _pods(name: str) -> Peer:
    return Peer(namespace=OBSERVABILITY, name=name, ports=())


def _streams(graph: CallGraph, environment: Environment) -> Iterator[Stream]:
    yield log_stream(graph, environment)
    if keeps_traces(environment):
        yield trace_stream(graph, environment)


def _users(index: Store, environment: Environment) -> Iterator[IndexUser]:
    """A calling service may use the indices `<its name>-*`. The Collector may only append log lines."""
    for caller in index.callers:
        account = Account(user=caller.name, secret=index.secret(caller))
        yield IndexUser(account=account, indices=(f"{caller.name}-*",), privileges=OWNS)
    yield user(grafana.ACCOUNT.user, cluster=("monitor",), indices=(LOGS_PATTERN,), privileges=READS)
    yield user(COLLECTOR, cluster=("monitor",), indices=(OTLP_PATTERN,), privileges=ADDS)
    if environment.deploys(ELASTICSEARCH_EXPORTER):
        yield user(ELASTICSEARCH_EXPORTER, cluster=("monitor",))
    if keeps_traces(environment):
        templates = ("monitor", "manage_index_templates")
        yield user(jaeger.ACCOUNT.user, cluster=templates, indices=(jaeger.INDICES,), privileges=(*OWNS, "manage"))
    if environment.deploys("kibana"):
        yield from kibana.USERS
