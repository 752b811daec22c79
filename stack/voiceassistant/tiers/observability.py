"""The observability tier: collection of telemetry, storage of metrics, and routing of alerts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network

from voice_policies import Duration

from components import images
from components.component import PART_OF
from components.links import Link, Links
from components.mesh.proxy import STATS_PORT
from components.network_policy import DNS_PORT, AddressBlock, Peer
from components.node import Dependency, External, Gateway, Service
from components.observability import (
    alertmanager,
    blackbox_exporter,
    jaeger,
    prometheus,
    tempo,
)
from components.observability.alertmanager import WEBHOOK_KEY, Alertmanager, AlertRoute, Inhibition, Receiver
from components.observability.blackbox_exporter import TLS, BlackboxExporter
from components.observability.collector import Collector
from components.observability.collector_config import Backend, Sampling
from components.observability.elasticsearch_setup import user
from components.observability.kube_state_metrics import KubeStateMetrics
from components.observability.prometheus import Prometheus
from components.observability.scrape_jobs import CERTIFICATES, KUBELET_PORT, ProbedHosts, ScrapeTarget
from components.observability.store_exporters import REDIS
from components.scrape import ANSWERS, CONNECTS, CONNECTS_OVER_TLS, RESOLVES, BlackboxModule
from components.secret_keys import SecretForm, SecretKeys
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.links import external_block, external_stores, scrape_link
from stack.model.policy_bundles import bundle_digests
from stack.model.tenant import Builder
from stack.voiceassistant import catalog, site, telemetry
from stack.voiceassistant.alerting import rule_groups
from stack.voiceassistant.platform_team import PLATFORM_TEAM, WATCHDOG
from stack.voiceassistant.site import PROBER_PODS as BLACKBOX
from stack.voiceassistant.site import PROMETHEUS_PODS as PROMETHEUS
from stack.voiceassistant.site import SITE
from stack.voiceassistant.store_alerts import VALKEY
from stack.voiceassistant.stores import elasticsearch_nodes, full_text_index, valkey_servers

OUTAGE = Duration("30m")
"""If a backend is down no longer than this, no telemetry is lost. The time suffices to replace a node."""

COLLECTOR = Peer(namespace=site.OBSERVABILITY, name=site.COLLECTOR, ports=())
ALERTMANAGER = Peer(namespace=site.OBSERVABILITY, name="alertmanager", ports=())
STATE = Peer(namespace=site.OBSERVABILITY, name="kube-state-metrics", ports=())
LOGS = user(site.COLLECTOR).account
"""The user that writes the log lines from OTLP."""

INFRASTRUCTURE_PODS = 3
"""Assumed maximum number of pods of a server without a size in the profile."""
ON_CALL = "on-call"


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """Every part of the tier."""
    yield partial(_collector, graph, environment, links)
    yield partial(_prometheus, graph, environment, links)
    yield partial(_alertmanager, environment, links)
    yield partial(_state, graph, environment, links)
    yield partial(_blackbox, graph, environment, links)


def links(graph: CallGraph, environment: Environment) -> Iterator[Link]:
    """The links of the tier's pods, in addition to the links that services and other tiers declare."""
    yield Link(source=COLLECTOR, target=PROMETHEUS.model_copy(update={"ports": (prometheus.PORT,)}))
    for pods, scrape in (
        (PROMETHEUS, Prometheus.scrape),
        (COLLECTOR, Collector.scrape),
        (ALERTMANAGER, Alertmanager.scrape),
        (STATE, KubeStateMetrics.scrape),
        (BLACKBOX, BlackboxExporter.scrape),
    ):
        yield scrape_link(graph.site, pods, scrape)
    gossip = {"ports": (alertmanager.GOSSIP_PORT,), "udp_ports": (alertmanager.GOSSIP_PORT,)}
    yield Link(source=ALERTMANAGER, target=ALERTMANAGER.model_copy(update=gossip))
    settings = environment.settings
    if settings.notifications:
        webhooks = AddressBlock(name="notifications", cidr=settings.notifications.network, ports=(443,))
        yield Link(source=ALERTMANAGER, target=webhooks)
    api = AddressBlock(name="kubernetes-api", cidr=settings.api_server.cidr, ports=(settings.api_server.port,))
    yield Link(source=PROMETHEUS, target=api)
    yield Link(source=STATE, target=api)
    yield Link(source=PROMETHEUS, target=AddressBlock(name="kubelets", cidr=settings.nodes, ports=(KUBELET_PORT,)))
    yield from (Link(BLACKBOX, external_block(*store)) for store in external_stores(graph))
    if network := settings.gateway_network:
        yield Link(BLACKBOX, AddressBlock(name="gateway-balancer", cidr=network, ports=(443,)))


def scraped(graph: CallGraph, environment: Environment, links: Links) -> Iterator[ScrapeTarget]:
    """One target for each link with a `scrape`: pods that Prometheus scrapes or that the prober probes."""
    for link in links:
        if link.scrape and isinstance(link.target, Peer):
            yield ScrapeTarget(
                name=link.target.name,
                namespace=link.target.namespace,
                label=link.target.label,
                pods=_most_pods(graph, environment, link.target),
                scrape=link.scrape,
            )


def _most_pods(graph: CallGraph, environment: Environment, target: Peer) -> int:
    """The largest number of pods at the same time, including the pod that a rollout adds.

    Node agents have a pod on each node. A server without a size in the profile counts as `INFRASTRUCTURE_PODS`.
    """
    node = graph.nodes.get(target.name)
    if isinstance(node, Service) and node.namespace == target.namespace:
        return environment.replicas(node).max + 1
    if target.namespace == site.NODE_AGENTS:
        return environment.settings.node_pool.nodes
    size = environment.profile.servers.get(site.EGRESS_PROXY if target.name in site.EGRESS_PROXIES else target.name)
    return size.scale.max + 1 if size else INFRASTRUCTURE_PODS


def _collector(graph: CallGraph, environment: Environment, links: Links) -> Collector:
    size = environment.server(site.COLLECTOR)
    return Collector(
        name=site.COLLECTOR,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.COLLECTOR),
        sizing=size.sizing,
        replicas=size.replicas,
        storage=size.volume,
        storage_class=size.storage_class,
        outage=OUTAGE,
        backends=tuple(_backends(graph, environment)),
        sampling=Sampling(decided=PART_OF, others=environment.settings.trace_sample_ratio),
        links=links,
    )


def _backends(graph: CallGraph, environment: Environment) -> Iterator[Backend]:
    for replica, url in enumerate(telemetry.prometheus_urls(environment)):
        # Each replica of Prometheus stores all metrics, so the Collector sends all metrics to each replica.
        yield Backend(
            name=f"{site.PROMETHEUS}-{replica}",
            signal="metrics",
            protocol="http",
            endpoint=f"{url}/api/v1/otlp",
            bytes_per_second=telemetry.metric_bytes(),
        )
    index = full_text_index(graph)
    if index is None:
        return
    for store, port in (("jaeger", jaeger.OTLP_PORT), ("tempo", tempo.OTLP_PORT)):
        yield Backend(
            name=store,
            signal="traces",
            protocol="grpc",
            endpoint=f"{SITE.host(store, site.OBSERVABILITY)}:{port}",
            bytes_per_second=telemetry.trace_bytes(graph, environment),
        )
    yield Backend(
        name=index.dependency.name,
        signal="logs",
        protocol="http",
        endpoint=f"{index.url}/_otlp",
        bytes_per_second=telemetry.log_bytes(graph, environment),
        user=LOGS.user,
        secret=LOGS.secret,
    )


def _prometheus(graph: CallGraph, environment: Environment, links: Links) -> Prometheus:
    found, probed = tuple(scraped(graph, environment, links)), tuple(probed_hosts(graph, environment))
    replicas = _alertmanager(environment, links).replica_names
    metrics = environment.settings.metrics
    size = environment.server(site.PROMETHEUS)
    return Prometheus(
        name=site.PROMETHEUS,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.PROMETHEUS),
        sizing=size.sizing,
        replicas=size.replicas,
        storage=metrics.storage,
        storage_class=size.storage_class,
        retention=metrics.retention,
        late=OUTAGE * 2,
        cluster=f"voice-{environment.name}",
        targets=found,
        probed_hosts=probed,
        proxied=tuple(sorted(_proxied(links))),
        prober=f"{_host(BLACKBOX)}:{blackbox_exporter.PORT}",
        alertmanagers=tuple(f"{name}:{alertmanager.PORT}" for name in replicas),
        groups=rule_groups(graph, found, probed, bundle_digests(graph, environment), mesh=environment.settings.mesh),
        runbook=site.RUNBOOK,
        links=links,
    )


def _proxied(links: Links) -> set[str]:
    """Namespaces of the pods with a proxy of the mesh."""
    proxies = (link.target for link in links if isinstance(link.target, Peer) and STATS_PORT in link.target.ports)
    return {proxy.namespace for proxy in proxies}


def probed_hosts(graph: CallGraph, environment: Environment) -> Iterator[ProbedHosts]:
    """Probes of Valkey (by its exporter), cluster DNS, the gateway's address, certificates and external stores."""
    hosts = tuple(address for servers in valkey_servers(graph, environment) for address in servers.addresses)
    if hosts and environment.deploys(site.VALKEY_EXPORTER):
        exporter = f"{SITE.host(site.VALKEY_EXPORTER, site.OBSERVABILITY)}:{REDIS.scrape.port}"
        yield ProbedHosts(name=VALKEY, module=VALKEY, hosts=hosts, exporter=exporter, health="redis_up")
    yield ProbedHosts(name=site.CLUSTER_DNS, module=RESOLVES.name, hosts=(_dns_server(environment),))
    if certified := tuple(_tls_servers(graph, environment)):
        yield ProbedHosts(name=CERTIFICATES, module=TLS, hosts=certified)
    if entrance := graph.gateway:
        yield from _public_endpoints(entrance, environment)
    for dependency, address in external_stores(graph):
        host, module = f"{address.host}:{address.port}", _probe_module(dependency, address)
        scheme = "https" if address.tls else "http"
        yield ProbedHosts(
            name=dependency.name, module=module.name, hosts=(f"{scheme}://{host}" if module is ANSWERS else host,)
        )


def _tls_servers(graph: CallGraph, environment: Environment) -> Iterator[str]:
    """`host:port` of each server with a certificate from the platform's secrets."""
    if entrance := graph.gateway:
        yield f"{SITE.host(entrance.name, entrance.namespace)}:443"
    yield from elasticsearch_nodes(graph, environment)


def _dns_server(environment: Environment) -> str:
    """The cluster's DNS as `address:port`. Distributions give its Service different names."""
    address = ip_network(environment.settings.cluster_dns[0]).network_address
    return f"[{address}]:{DNS_PORT}" if address.version == 6 else f"{address}:{DNS_PORT}"


def _public_endpoints(gateway: Gateway, environment: Environment) -> Iterator[ProbedHosts]:
    """A probe of the gateway's host name. If `gateway_network` is set, also a probe of the gateway's first GET route.

    Without a load balancer or a `gateway_host` there is no probe. The prober sends no token, so the route may answer
    with status 401.
    """
    settings = environment.settings
    if environment.profile.load_balancer and settings.gateway_host:
        module = _dns_module(settings.gateway_host).name
        yield ProbedHosts(name=site.PUBLIC_NAME, module=module, hosts=(_dns_server(environment),))
        paths = (each.http.path for each in gateway.operations if each.http and each.http.method == "GET")
        if settings.gateway_network and (path := next(paths, None)):
            url = f"https://{settings.gateway_host}{path}"
            yield ProbedHosts(name=site.PUBLIC_ENTRANCE, module=ANSWERS.name, hosts=(url,))


def _dns_module(name: str) -> BlackboxModule:
    """The module that resolves a public name. The probe fails if the answer contains no IPv4 address."""
    answered = {"fail_if_none_matches_regexp": [r"\tA\t"]}
    settings = {"query_name": name, "query_type": "A", "validate_answer_rrs": answered}
    return BlackboxModule(name=site.PUBLIC_NAME, prober="dns", settings=settings)


def _probe_module(dependency: Dependency, address: External) -> BlackboxModule:
    """The module that probes an external store. PostgreSQL gets no TLS probe: its protocol does not begin with TLS."""
    if dependency.protocol == "http":
        return ANSWERS
    return CONNECTS_OVER_TLS if address.tls and dependency.protocol == "redis" else CONNECTS


def _webhook_secret(receiver: str) -> SecretKeys:
    form = SecretForm(kind="url", external=True, meaning=f"the webhook URL of Alertmanager's receiver `{receiver}`")
    return SecretKeys(name=f"alertmanager-{receiver}", keys=(WEBHOOK_KEY,), forms={WEBHOOK_KEY: form})


def _alertmanager(environment: Environment, links: Links) -> Alertmanager:
    names = [ON_CALL, PLATFORM_TEAM, WATCHDOG, *catalog.TEAM_SERVICES] if environment.settings.notifications else []
    receivers = tuple(Receiver(name=name, secret=_webhook_secret(name)) for name in names)
    size = environment.server(ALERTMANAGER.name)
    return Alertmanager(
        name=ALERTMANAGER.name,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.ALERTMANAGER),
        sizing=size.sizing,
        replicas=size.replicas,
        storage=size.volume,
        storage_class=size.storage_class,
        receivers=receivers,
        routes=tuple(_routes(names)),
        default=PLATFORM_TEAM if names else alertmanager.NOBODY,
        inhibitions=(
            # If all pods of a job are missing, the job's warnings mean nothing. The alert for one missing pod mutes
            # nothing, because the other pods may have other faults.
            Inhibition(alert="TargetMissing", severities=("warning",), equal=("job",)),
        ),
        links=links,
    )


def _routes(receivers: list[str]) -> Iterator[AlertRoute]:
    for name in receivers:
        if name == ON_CALL:
            yield AlertRoute(receiver=name, severity="critical", repeat=Duration("1h"), continue_=True)
        else:
            yield AlertRoute(receiver=name, team=name, repeat=Duration("5m" if name == WATCHDOG else "12h"))


def _state(graph: CallGraph, environment: Environment, links: Links) -> KubeStateMetrics:
    watched = {target.namespace for target in scraped(graph, environment, links)}
    return KubeStateMetrics(
        name=STATE.name,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.KUBE_STATE_METRICS),
        sizing=environment.server(STATE.name).sizing,
        namespaces=tuple(sorted(watched & environment.profile.quotas.keys())),
        links=links,
    )


def _blackbox(graph: CallGraph, environment: Environment, links: Links) -> BlackboxExporter:
    modules = [target.scrape.module for target in scraped(graph, environment, links)]
    modules += [RESOLVES, ANSWERS, *(_probe_module(*store) for store in external_stores(graph))]
    if host := environment.settings.gateway_host:
        modules.append(_dns_module(host))
    return BlackboxExporter(
        name=BLACKBOX.name,
        namespace=site.OBSERVABILITY,
        image=environment.third_party_image(images.BLACKBOX_EXPORTER),
        sizing=environment.server(BLACKBOX.name).sizing,
        modules=tuple({module.name: module for module in modules if module}.values()),
        server_name=environment.settings.gateway_host if graph.gateway else None,
        links=links,
    )


def _host(peer: Peer) -> str:
    return SITE.host(peer.name, peer.namespace)
