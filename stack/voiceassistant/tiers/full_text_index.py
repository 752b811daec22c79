"""The full-text index: Elasticsearch, which services search in and which keeps logs and Jaeger's traces."""

from __future__ import annotations

from collections.abc import Iterator

from components import images
from components.network_policy import Peer
from components.node import InCluster
from components.observability import elasticsearch, grafana, jaeger, kibana
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import (
    LOGS_PATTERN,
    OTLP_PATTERN,
    SUPERUSER,
    IndexUser,
    user,
)
from components.observability.retention import Stream
from components.observability.setup_job import Account
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import Link, Links, scrape_link
from stack.model.microservices import caller_secret
from stack.voiceassistant.catalog.dependencies import ELASTICSEARCH
from stack.voiceassistant.targets import COLLECTOR, OBSERVABILITY, SITE
from stack.voiceassistant.telemetry_streams import log_stream, trace_stream

READS = ("read", "view_index_metadata")
OWNS = (*READS, "write", "create_index")
ADDS = ("create_doc", "auto_configure")
(ADDRESS,) = (found for found in ELASTICSEARCH.addresses if isinstance(found, InCluster))
INDEX = Peer(namespace=ADDRESS.namespace, name=ADDRESS.service, ports=(ADDRESS.port,))
INDEX_URL = f"http://{SITE.host(ADDRESS.service, ADDRESS.namespace)}:{ADDRESS.port}"
SETUP = INDEX.model_copy(update={"name": f"{ADDRESS.service}-setup", "ports": ()})


def is_declared(graph: CallGraph) -> bool:
    """Whether the graph has the index, as the real one has."""
    return graph.nodes.get(ELASTICSEARCH.name) == ELASTICSEARCH


def keeps_traces(environment: Environment) -> bool:
    """Whether Jaeger keeps its traces in the index: its replicas share them, while a single one has them in memory."""
    return environment.server("jaeger").replicas > 1


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Elasticsearch]:
    """The index, where it is declared."""
    if not is_declared(graph):
        return
    users = tuple(_users(graph, environment))
    size = environment.server(INDEX.name)
    own = (elasticsearch.TRANSPORT,) if size.replicas > 1 else ()
    yield Elasticsearch(
        name=INDEX.name,
        namespace=INDEX.namespace,
        image=environment.third_party_image(images.ELASTICSEARCH),
        sizing=size.sizing,
        nodes=size.replicas,
        storage=size.volume,
        streams=tuple(_streams(graph, environment)),
        users=users,
        secrets=(SUPERUSER.secret, *own, *(found.account.secret for found in users)),
        ingress=links.ingress(INDEX.namespace, INDEX.name),
        egress=links.egress(INDEX.namespace, INDEX.name),
        setup_egress=links.egress(SETUP.namespace, SETUP.name),
    )


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """What sets it up, what keeps telemetry in it and shows that, and its nodes among themselves."""
    if not is_declared(graph):
        return
    clients = [SETUP, *(_pods(name) for name in ("grafana", COLLECTOR))]
    if keeps_traces(environment):
        clients += map(_pods, ("jaeger", "jaeger-retention"))
    if environment.deploys("kibana"):
        clients.append(_pods("kibana"))
    for client in clients:
        yield Link(source=client, target=INDEX)
    yield scrape_link(graph.site, INDEX, Elasticsearch.scrape)
    if environment.server(INDEX.name).replicas > 1:
        nodes = INDEX.model_copy(update={"ports": (elasticsearch.TRANSPORT_PORT,)})
        yield Link(source=INDEX.model_copy(update={"ports": ()}), target=nodes)


def _pods(name: str) -> Peer:
    return Peer(namespace=OBSERVABILITY, name=name, ports=())


def _streams(graph: CallGraph, environment: Environment) -> Iterator[Stream]:
    yield log_stream(graph, environment)
    if keeps_traces(environment):
        yield trace_stream(graph, environment)


def _users(graph: CallGraph, environment: Environment) -> Iterator[IndexUser]:
    """Each service over indices of its own name; the Collector only adds to those of log lines."""
    for name, caller in {edge.caller.name: edge.caller for edge in graph.edges_to(ELASTICSEARCH)}.items():
        secret = caller_secret(caller, ELASTICSEARCH)
        yield IndexUser(account=Account(user=name, secret=secret), indices=(f"{name}-*",), privileges=OWNS)
    yield user(grafana.ACCOUNT.user, cluster=("monitor",), indices=(LOGS_PATTERN,), privileges=READS)
    yield user(COLLECTOR, cluster=("monitor",), indices=(OTLP_PATTERN,), privileges=ADDS)
    if keeps_traces(environment):
        templates = ("monitor", "manage_index_templates")
        yield user(jaeger.ACCOUNT.user, cluster=templates, indices=(jaeger.INDICES,), privileges=(*OWNS, "manage"))
    if environment.deploys("kibana"):
        yield from kibana.USERS
