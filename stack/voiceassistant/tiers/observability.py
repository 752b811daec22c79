"""The observability tier: what collects telemetry, what keeps metrics, and who is told when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from pydantic import ValidationError
from voice_policies import Bytes, Duration, Fault, InvalidInputError, faults_of

from components import images
from components.component import Component
from components.consul.servers import Consul
from components.edge.egress_proxy import EgressProxy
from components.edge.gateway import ApisixGateway
from components.network_policy import AddressBlock, Peer
from components.node import Gateway, Sizing
from components.observability import (
    alertmanager,
    blackbox_exporter,
    collector_config,
    jaeger,
    kube_state_metrics,
    prometheus,
    tempo,
)
from components.observability.alertmanager import WEBHOOK_KEY, Alertmanager, AlertRoute, Inhibition, Receiver
from components.observability.blackbox_exporter import BlackboxExporter
from components.observability.collector import Collector
from components.observability.collector_config import Backend, Sampling
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import user
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana
from components.observability.jaeger import Jaeger
from components.observability.kibana import Kibana
from components.observability.kube_state_metrics import KubeStateMetrics
from components.observability.prometheus import Prometheus
from components.observability.scraping import KUBELET_PORT, ScrapeTarget
from components.observability.tempo import Tempo
from components.postgresql.cluster import PostgresqlCluster
from components.postgresql.server import PostgresqlServer
from components.scrape import Scrape
from components.secret_keys import SecretKeys
from components.valkey.replicated import ReplicatedValkey
from components.valkey.server import Valkey
from stack.model.call_graph import CallGraph
from stack.model.environments import N_PLUS_ONE, Environment
from stack.model.peers import Link, link_egress, link_ingress
from stack.voiceassistant import alerts, targets, telemetry
from stack.voiceassistant.alerting import rule_groups
from stack.voiceassistant.catalog import dependencies
from stack.voiceassistant.targets import PROBER_PODS as BLACKBOX
from stack.voiceassistant.targets import PROMETHEUS_PODS as PROMETHEUS
from stack.voiceassistant.targets import SITE
from stack.voiceassistant.tiers import data, egress, full_text_index, gateway, telemetry_stores
from stack.voiceassistant.tiers.full_text_index import INDEX_URL, is_declared
from stack.voiceassistant.tiers.telemetry_stores import prometheus_urls

COLLECTOR_SIZING = Sizing.of(cpu=("1", "2"), memory=("2Gi", "2Gi"))
DEV_COLLECTOR_SIZING = Sizing.of(cpu=("50m", "1"), memory=("128Mi", "512Mi"))
PROMETHEUS_SIZING = Sizing.of(cpu=("1", "4"), memory=("8Gi", "8Gi"))
"""8 KiB for each of the series that are declared, and as much again for queries and for pods that come and go."""
DEV_PROMETHEUS_SIZING = Sizing.of(cpu=("100m", "1"), memory=("512Mi", "2Gi"))
SMALL_SIZING = Sizing.of(cpu=("50m", "200m"), memory=("128Mi", "256Mi"))
COLLECTORS = {"dev": 1, "staging": 2, "prod": 3}
SERVERS = {"dev": 1, "staging": N_PLUS_ONE, "prod": N_PLUS_ONE}
"""Replicas of Prometheus and of Alertmanager."""
BUFFERS = {"dev": Bytes("3Gi"), "staging": Bytes("60Gi"), "prod": Bytes("60Gi")}
OUTAGE = Duration("30m")
"""The longest absence of a backend that loses nothing: a node that is replaced, an upgrade that goes wrong once."""
NOTES = Bytes("1Gi")

COLLECTOR = Peer(namespace=targets.OBSERVABILITY, name=targets.COLLECTOR, ports=())
ALERTMANAGER = Peer(namespace=targets.OBSERVABILITY, name="alertmanager", ports=())
STATE = Peer(namespace=targets.OBSERVABILITY, name="kube-state-metrics", ports=())
LOGS = user(targets.COLLECTOR).account
"""Who adds the log lines that come over OTLP."""

DECLARED = (
    *(
        server.scrape
        for server in (Valkey, Consul, PostgresqlServer, Elasticsearch, Kibana, ApisixGateway, EgressProxy)
    ),
    *(server.scrape for server in (Prometheus, Collector, Alertmanager, KubeStateMetrics, BlackboxExporter)),
    *(server.scrape for server in (Jaeger, Tempo, Grafana, FluentBit)),
    ReplicatedValkey.sentinel_scrape,
    PostgresqlCluster.instance_scrape,
    PostgresqlCluster.pooler_scrape,
)
INFRASTRUCTURE_PODS = 3
"""Most of one kind, where no autoscaler counts them."""
ON_CALL = "on-call"


def components(graph: CallGraph, environment: Environment) -> Iterator[Component]:
    """Every part of the tier; raises `InvalidInputError` with what cannot hold together, of all parts at once."""
    ways = tuple(_all_links(graph, environment))
    builders: tuple[Callable[[], Component], ...] = (
        lambda: _collector(graph, environment, ways),
        lambda: _prometheus(graph, environment, ways),
        lambda: _alertmanager(environment, ways),
        lambda: _state(environment, ways),
        lambda: _blackbox(graph, environment, ways),
    )
    built: list[Component] = []
    faults: list[Fault] = []
    for build in builders:
        try:
            built.append(build())
        except ValidationError as error:
            faults += faults_of(error, prefix=error.title)
    if faults:
        raise InvalidInputError("stack/voiceassistant/catalog", faults)
    yield from built


def links(_: CallGraph, environment: Environment) -> Iterator[Link]:
    """What the tier's pods reach among themselves and outside, beside what the services and other tiers declare."""
    yield Link(source=COLLECTOR, target=PROMETHEUS.model_copy(update={"ports": (prometheus.PORT,)}))
    for asked, port in (
        (PROMETHEUS, prometheus.PORT),
        (COLLECTOR, collector_config.METRICS_PORT),
        (ALERTMANAGER, alertmanager.PORT),
        (STATE, kube_state_metrics.PORT),
        (BLACKBOX, blackbox_exporter.PORT),
    ):
        yield Link(source=PROMETHEUS, target=asked.model_copy(update={"ports": (port,)}))
    gossip = {"ports": (alertmanager.GOSSIP_PORT,), "datagrams": (alertmanager.GOSSIP_PORT,)}
    yield Link(source=ALERTMANAGER, target=ALERTMANAGER.model_copy(update=gossip))
    settings = environment.settings
    if settings.notifications:
        told = AddressBlock(name="notifications", cidr=settings.notifications.network, ports=(443,))
        yield Link(source=ALERTMANAGER, target=told)
    api = AddressBlock(name="kubernetes-api", cidr=settings.api_server.cidr, ports=(settings.api_server.port,))
    yield Link(source=PROMETHEUS, target=api)
    yield Link(source=STATE, target=api)
    yield Link(source=PROMETHEUS, target=AddressBlock(name="kubelets", cidr=settings.nodes, ports=(KUBELET_PORT,)))


def scraped(graph: CallGraph, environment: Environment) -> Iterator[ScrapeTarget]:
    """Every service, and every component whose tier declares that Prometheus or the prober asks it."""
    for service in graph.services:
        pods = environment.replicas(service).max + 1
        scrape = Scrape(port=service.http_port)
        yield ScrapeTarget(name=service.name, namespace=service.namespace, pods=pods, scrape=scrape)
    pool = environment.settings.node_pool
    for link in _all_links(graph, environment):
        if not isinstance(link.target, Peer):
            continue
        for scrape in DECLARED:
            asks = PROMETHEUS if scrape.module is None else BLACKBOX
            if link.source == asks and link.target.ports == (scrape.port,):
                yield ScrapeTarget(
                    name=link.target.name,
                    namespace=link.target.namespace,
                    label=link.target.label,
                    pods=pool.nodes if link.target.namespace == targets.NODE_AGENTS else INFRASTRUCTURE_PODS,
                    scrape=scrape,
                )
                break


def _all_links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """Of this tier, and of those whose pods it asks or hears."""
    tiers = (data, full_text_index, egress, telemetry_stores, gateway)
    return chain.from_iterable(declared(graph, environment) for declared in (*(tier.links for tier in tiers), links))


def _collector(graph: CallGraph, environment: Environment, ways: tuple[Link, ...]) -> Collector:
    decided = [service.name for service in graph.services]
    return Collector(
        name=targets.COLLECTOR,
        namespace=targets.OBSERVABILITY,
        image=environment.third_party_image(images.COLLECTOR),
        sizing=DEV_COLLECTOR_SIZING if environment.name == "dev" else COLLECTOR_SIZING,
        replicas=COLLECTORS[environment.name],
        storage=BUFFERS[environment.name],
        outage=OUTAGE,
        backends=tuple(_backends(graph, environment)),
        sampling=Sampling(
            decided=(*decided, *([graph.gateway.name] if graph.gateway else [])),
            others=environment.settings.trace_sample_ratio,
        ),
        secrets=(LOGS.secret,) if is_declared(graph) else (),
        ingress=(*_services(graph, targets.COLLECTOR_PORT), *link_ingress(ways, targets.COLLECTOR)),
        egress=tuple(link_egress(ways, targets.COLLECTOR)),
    )


def _backends(graph: CallGraph, environment: Environment) -> Iterator[Backend]:
    for replica, url in enumerate(prometheus_urls(environment)):
        # Each replica keeps everything, so each is sent everything.
        yield Backend(
            name=f"{targets.PROMETHEUS}-{replica}",
            signal="metrics",
            protocol="http",
            endpoint=f"{url}/api/v1/otlp",
            bytes_per_second=telemetry.metric_bytes(),
        )
    if not is_declared(graph):
        return
    for store, port in (("jaeger", jaeger.OTLP_PORT), ("tempo", tempo.OTLP_PORT)):
        yield Backend(
            name=store,
            signal="traces",
            protocol="grpc",
            endpoint=f"{SITE.host(store, targets.OBSERVABILITY)}:{port}",
            bytes_per_second=telemetry.trace_bytes(graph, environment),
        )
    yield Backend(
        name=dependencies.ELASTICSEARCH.name,
        signal="logs",
        protocol="http",
        endpoint=f"{INDEX_URL}/_otlp",
        bytes_per_second=telemetry.log_bytes(graph, environment),
        user=LOGS.user,
        secret=LOGS.secret,
    )


def _prometheus(graph: CallGraph, environment: Environment, ways: tuple[Link, ...]) -> Prometheus:
    found = tuple(scraped(graph, environment))
    told = _alertmanager(environment, ways)
    metrics = environment.settings.metrics
    return Prometheus(
        name=targets.PROMETHEUS,
        namespace=targets.OBSERVABILITY,
        image=environment.third_party_image(images.PROMETHEUS),
        sizing=DEV_PROMETHEUS_SIZING if environment.name == "dev" else PROMETHEUS_SIZING,
        replicas=SERVERS[environment.name],
        storage=metrics.storage,
        retention=metrics.retention,
        late=OUTAGE * 2,
        cluster=f"voice-{environment.name}",
        targets=found,
        certificates=tuple(_certificates(graph.gateway)),
        prober=f"{_host(BLACKBOX)}:{blackbox_exporter.PORT}",
        alertmanagers=tuple(f"{name}:{alertmanager.PORT}" for name in told.replica_names),
        groups=rule_groups(graph, found),
        ingress=tuple(link_ingress(ways, targets.PROMETHEUS)),
        egress=(*_services(graph), *link_egress(ways, targets.PROMETHEUS)),
    )


def _certificates(entrance: Gateway | None) -> Iterator[str]:
    if entrance:
        yield f"{SITE.host(entrance.name, entrance.namespace)}:443"


def _alertmanager(environment: Environment, ways: tuple[Link, ...]) -> Alertmanager:
    told = [ON_CALL, alerts.PLATFORM_TEAM, *alerts.TEAM_SERVICES] if environment.settings.notifications else []
    receivers = tuple(
        Receiver(name=name, secret=SecretKeys(name=f"alertmanager-{name}", keys=(WEBHOOK_KEY,))) for name in told
    )
    return Alertmanager(
        name=ALERTMANAGER.name,
        namespace=targets.OBSERVABILITY,
        image=environment.third_party_image(images.ALERTMANAGER),
        sizing=environment.scaled(SMALL_SIZING),
        replicas=SERVERS[environment.name],
        storage=NOTES,
        receivers=receivers,
        routes=tuple(_routes(told)),
        default=alerts.PLATFORM_TEAM if told else alertmanager.NOBODY,
        inhibitions=(
            # Of what cannot be seen at all nothing else is known. One replica that is down says nothing of the others.
            Inhibition(alert="TargetMissing", severities=("warning",), equal=("job",)),
        ),
        secrets=tuple(receiver.secret for receiver in receivers),
        ingress=tuple(link_ingress(ways, ALERTMANAGER.name)),
        egress=tuple(link_egress(ways, ALERTMANAGER.name)),
    )


def _routes(told: list[str]) -> Iterator[AlertRoute]:
    """Whoever is on call is told what cannot wait, and every team what is its own."""
    for name in told:
        if name == ON_CALL:
            yield AlertRoute(receiver=name, severity="critical", repeat=Duration("1h"), goes_on=True)
        else:
            yield AlertRoute(receiver=name, team=name, repeat=Duration("12h"))


def _state(environment: Environment, ways: tuple[Link, ...]) -> KubeStateMetrics:
    return KubeStateMetrics(
        name=STATE.name,
        namespace=targets.OBSERVABILITY,
        image=environment.third_party_image(images.KUBE_STATE_METRICS),
        sizing=environment.scaled(SMALL_SIZING),
        namespaces=tuple(sorted(environment.quotas)),
        ingress=tuple(link_ingress(ways, STATE.name)),
        egress=tuple(link_egress(ways, STATE.name)),
    )


def _blackbox(graph: CallGraph, environment: Environment, ways: tuple[Link, ...]) -> BlackboxExporter:
    modules = (target.scrape.module for target in scraped(graph, environment))
    return BlackboxExporter(
        name=BLACKBOX.name,
        namespace=targets.OBSERVABILITY,
        image=environment.third_party_image(images.BLACKBOX_EXPORTER),
        sizing=environment.scaled(SMALL_SIZING),
        modules=tuple({module.name: module for module in modules if module}.values()),
        server_name=gateway.HOSTS[environment.name],
        ingress=tuple(link_ingress(ways, BLACKBOX.name)),
        egress=tuple(link_egress(ways, BLACKBOX.name)),
    )


def _services(graph: CallGraph, port: int | None = None) -> Iterator[Peer]:
    """The services' pods on a port, by default on their own for HTTP."""
    for service in graph.services:
        yield Peer(namespace=service.namespace, name=service.name, ports=(port or service.http_port,))


def _host(peer: Peer) -> str:
    return SITE.host(peer.name, peer.namespace)
