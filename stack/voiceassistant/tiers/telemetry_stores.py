"""Stores and user interfaces of telemetry: Jaeger, Tempo, Grafana, Kibana, and the log shipper of the nodes.

A profile may leave out the log shipper and Kibana. Then nothing collects the log files of the nodes. Use `kubectl logs`
to read the output of pods.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.links import Link, Links
from components.network_policy import AddressBlock, Peer
from components.observability import fluent_bit, jaeger, kibana, tempo
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana, Sources
from components.observability.jaeger import InElasticsearch, InMemory, Jaeger
from components.observability.kibana import Kibana
from components.observability.tempo import Bucket, Tempo
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.tenant import Builder
from stack.voiceassistant import site, telemetry
from stack.voiceassistant.dashboards import dashboards
from stack.voiceassistant.site import COLLECTOR, NODE_AGENTS, OBSERVABILITY, SITE
from stack.voiceassistant.stores import backup_store, full_text_index, keeps_traces
from stack.voiceassistant.telemetry_streams import block_stream, trace_stream

MAX_TRACES = 2_000
"""Largest number of traces that Jaeger keeps in memory."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """Stores first, then the servers that show and fill them. Yields nothing without a full-text index for logs."""
    index = full_text_index(graph)
    if index is None:
        return
    yield partial(_jaeger, graph, environment, links, index.url)
    yield partial(_tempo, graph, environment, links)
    yield partial(_grafana, graph, environment, links, index.url)
    if environment.deploys("kibana"):
        yield partial(_kibana, environment, links, index.url)
    if environment.deploys("fluent-bit"):
        yield partial(_fluent_bit, environment, links)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """Links of these servers with each other, Prometheus, Alertmanager, the Collector and the object store."""
    if full_text_index(graph) is None:
        return
    yield Link(source=_pods(COLLECTOR), target=_pods("jaeger", jaeger.OTLP_PORT))
    yield Link(source=_pods(COLLECTOR), target=_pods("tempo", tempo.OTLP_PORT))
    yield Link(source=_pods("tempo"), target=SITE.prometheus)
    yield from _grafana_links()
    for name, scrape in (("jaeger", Jaeger.scrape), ("tempo", Tempo.scrape), ("grafana", Grafana.scrape)):
        yield scrape_link(graph.site, _pods(name), scrape)
    if environment.deploys("kibana"):
        yield Link(source=_pods("kibana-setup"), target=_pods("kibana", kibana.PORT))
        yield scrape_link(SITE, _pods("kibana"), Kibana.scrape)
    if environment.deploys("fluent-bit"):
        yield from _shipper_links()
    if (backups := environment.settings.backups) and environment.settings.trace_bucket:
        store = AddressBlock(name="backup-store", cidr=backups.network, ports=(backup_store().port,))
        yield Link(source=_pods("tempo"), target=store)


def _grafana_links() -> Iterator[Link]:
    shown = {
        site.PROMETHEUS: site.PROMETHEUS_PORT,
        site.ALERTMANAGER: site.ALERTMANAGER_PORT,
        "tempo": tempo.HTTP_PORT,
        "jaeger": jaeger.QUERY_PORT,
    }
    for name, port in shown.items():
        yield Link(source=_pods("grafana"), target=_pods(name, port))


def _shipper_links() -> Iterator[Link]:
    shippers = Peer(namespace=NODE_AGENTS, name="fluent-bit", ports=(fluent_bit.PORT,))
    yield scrape_link(SITE, shippers, FluentBit.scrape)
    yield Link(source=shippers.model_copy(update={"ports": ()}), target=_pods(COLLECTOR, site.COLLECTOR_HTTP_PORT))


def _pods(name: str, *ports: int) -> Peer:
    return Peer(namespace=OBSERVABILITY, name=name, ports=ports)


def _url(name: str, port: int) -> str:
    return f"http://{SITE.host(name, OBSERVABILITY)}:{port}"


def _jaeger(graph: CallGraph, environment: Environment, links: Links, index_url: str) -> Jaeger:
    size = environment.server("jaeger")
    index = InElasticsearch(
        url=index_url,
        stream=trace_stream(graph, environment),
        image=environment.third_party_image(images.ELASTICSEARCH),
    )
    return Jaeger(
        name="jaeger",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.JAEGER),
        sizing=size.sizing,
        replicas=size.replicas,
        storage=index if keeps_traces(environment) else InMemory(max_traces=MAX_TRACES),
        links=links,
    )


def _tempo(graph: CallGraph, environment: Environment, links: Links) -> Tempo:
    bucket = environment.settings.trace_bucket
    endpoint = f"{backup_store().host}:{backup_store().port}"
    curl = environment.third_party_image(images.ELASTICSEARCH)
    size = environment.server("tempo")
    return Tempo(
        name="tempo",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.TEMPO),
        sizing=size.sizing,
        storage=size.volume,
        storage_class=size.storage_class,
        stream=block_stream(graph, environment),
        bucket=Bucket(bucket=bucket, endpoint=endpoint, image=curl) if bucket else None,
        remote_write=tuple(f"{url}/api/v1/write" for url in telemetry.prometheus_urls(environment)),
        links=links,
    )


def _grafana(graph: CallGraph, environment: Environment, links: Links, index_url: str) -> Grafana:
    return Grafana(
        name="grafana",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.GRAFANA),
        sizing=environment.server("grafana").sizing,
        sources=Sources(
            prometheus=_url(site.PROMETHEUS, site.PROMETHEUS_PORT),
            alertmanager=_url(site.ALERTMANAGER, site.ALERTMANAGER_PORT),
            tempo=_url("tempo", tempo.HTTP_PORT),
            jaeger=_url("jaeger", jaeger.QUERY_PORT),
            elasticsearch=index_url,
        ),
        dashboards=dashboards(graph, environment.settings.prices or graph.site.prices),
        links=links,
    )


def _kibana(environment: Environment, links: Links, index_url: str) -> Kibana:
    size = environment.server("kibana")
    return Kibana(
        name="kibana",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.KIBANA),
        setup_image=environment.third_party_image(images.ELASTICSEARCH),
        sizing=size.sizing,
        replicas=size.replicas,
        elasticsearch=index_url,
        links=links,
    )


def _fluent_bit(environment: Environment, links: Links) -> FluentBit:
    size = environment.server("fluent-bit")
    return FluentBit(
        name="fluent-bit",
        namespace=NODE_AGENTS,
        image=environment.third_party_image(images.FLUENT_BIT),
        sizing=size.sizing,
        namespaces="voice-*",
        collector=SITE.host(COLLECTOR, OBSERVABILITY),
        buffer=size.volume,
        links=links,
    )
