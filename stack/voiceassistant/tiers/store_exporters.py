"""Exporters for the stores that serve no metrics themselves. The profile says which exporters are deployed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from components import images
from components.links import Link, Links
from components.network_policy import Peer
from components.observability.elasticsearch_setup import user
from components.observability.store_exporters import ELASTICSEARCH, REDIS, VALKEY_ACCOUNT, StoreExporter
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.tenant import Builder
from stack.voiceassistant import site
from stack.voiceassistant.stores import DeployedStore, full_text_index, valkey_servers


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """The exporters of Valkey and Elasticsearch, for the stores that the platform deploys."""
    if any(valkey_servers(graph, environment)) and environment.deploys(site.VALKEY_EXPORTER):
        yield partial(_valkey_exporter, environment, links)
    index = full_text_index(graph)
    if isinstance(index, DeployedStore) and environment.deploys(site.ELASTICSEARCH_EXPORTER):
        yield partial(_elasticsearch_exporter, environment, links, index.url)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """Links from each exporter to its stores, and from Prometheus to each exporter."""
    servers, index = list(valkey_servers(graph, environment)), full_text_index(graph)
    if servers and environment.deploys(site.VALKEY_EXPORTER):
        exporter = _pods(site.VALKEY_EXPORTER)
        yield from (Link(exporter, server.pods) for server in servers)
        yield scrape_link(graph.site, exporter, REDIS.scrape)
    if isinstance(index, DeployedStore) and environment.deploys(site.ELASTICSEARCH_EXPORTER):
        exporter = _pods(site.ELASTICSEARCH_EXPORTER)
        yield Link(exporter, index.endpoint)
        yield scrape_link(graph.site, exporter, ELASTICSEARCH.scrape)


def _valkey_exporter(environment: Environment, links: Links) -> StoreExporter:
    return StoreExporter(
        name=site.VALKEY_EXPORTER,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.REDIS_EXPORTER),
        sizing=environment.server(site.VALKEY_EXPORTER).sizing,
        program=REDIS,
        account=VALKEY_ACCOUNT,
        # Prometheus names the Valkey server in each scrape. The exporter's ACL user may not run CONFIG.
        arguments=("--redis.addr=", "--config-command=-", "--exclude-latency-histogram-metrics"),
        links=links,
    )


def _elasticsearch_exporter(environment: Environment, links: Links, url: str) -> StoreExporter:
    return StoreExporter(
        name=site.ELASTICSEARCH_EXPORTER,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.ELASTICSEARCH_EXPORTER),
        sizing=environment.server(site.ELASTICSEARCH_EXPORTER).sizing,
        program=ELASTICSEARCH,
        account=user(site.ELASTICSEARCH_EXPORTER).account,
        arguments=(f"--es.uri={url}", "--es.all"),
        links=links,
    )


def _pods(name: str) -> Peer:
    return Peer(namespace=site.OBSERVABILITY, name=name, ports=())
