"""Where telemetry is kept and looked at: Elasticsearch with Kibana, Jaeger, Tempo, Grafana, and the nodes' log shipper.

dev has neither shipper nor Kibana: `kubectl logs` shows what its pods print, and nothing there reads the node.
"""

from __future__ import annotations

from collections.abc import Iterator

from voice_policies import Bytes, Duration

from components import images
from components.component import Component
from components.network_policy import AddressBlock, NetworkEnd, Peer
from components.node import InCluster, Sizing
from components.observability import elasticsearch, fluent_bit, grafana, jaeger, kibana, tempo
from components.observability.dashboards import platform_dashboard, service_dashboard
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import LOGS, LOGS_PATTERN, SUPERUSER, IndexUser, user
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana, Sources
from components.observability.jaeger import InElasticsearch, InMemory, Jaeger
from components.observability.kibana import Kibana
from components.observability.retention import DAY, Stream
from components.observability.setup_job import Account
from components.observability.tempo import Bucket, Tempo
from components.secret_keys import SecretKeys
from stack.call_graph import CallGraph
from stack.catalog import dependencies, targets
from stack.catalog.targets import COLLECTOR, DATA, NODE_AGENTS, OBSERVABILITY
from stack.environments import N_PLUS_ONE, Environment
from stack.peers import PROMETHEUS, Link, datastore_ingress, link_egress, link_ingress
from stack.policy_bundles import CLUSTER_DOMAIN
from stack.telemetry_rate import log_lines, spans
from stack.tiers.applications import secret_name
from stack.tiers.data import backup_store

ELASTICSEARCH_SIZING = Sizing.of(cpu=("2", "2"), memory=("8Gi", "8Gi"))
SMALL_ELASTICSEARCH = Sizing.of(cpu=("1", "1"), memory=("2Gi", "2Gi"))
"""Requests equal limits, and half of the memory is heap: a datastore that is throttled takes its readers along."""
TEMPO_SIZING = Sizing.of(cpu=("1", "2"), memory=("4Gi", "4Gi"))
JAEGER_SIZING = Sizing.of(cpu=("250m", "1"), memory=("512Mi", "512Mi"))
KIBANA_SIZING = Sizing.of(cpu=("250m", "1"), memory=("1Gi", "1536Mi"))
GRAFANA_SIZING = Sizing.of(cpu=("100m", "1"), memory=("256Mi", "512Mi"))
SHIPPER_SIZING = Sizing.of(cpu=("50m", "500m"), memory=("64Mi", "256Mi"))
ELASTICSEARCH_STORAGE = {"dev": Bytes("10Gi"), "staging": Bytes("150Gi"), "prod": Bytes("800Gi")}
"""Of each node: rule and arithmetic are `Elasticsearch.conflicts`."""
TEMPO_STORAGE = {"dev": Bytes("5Gi"), "staging": Bytes("20Gi"), "prod": Bytes("50Gi")}
SHIPPER_BUFFER = Bytes("1Gi")
LINE_SIZE, SPAN_SIZE, BLOCK_SPAN_SIZE = Bytes("250"), Bytes("400"), Bytes("100")
"""Assumed of one copy on disk, compressed: a log line and a span in Elasticsearch, and a span in a block of Tempo's.
`_cat/indices` and Tempo's block metadata tell the true ones."""
LOG_RETENTION = Duration("7d")
TRACE_RETENTION = Duration("3d")
"""In Jaeger, which is for looking at what just went wrong."""
BLOCK_RETENTION = {"dev": Duration("2d"), "staging": Duration("7d"), "prod": Duration("14d")}
"""In Tempo, which is for comparing with last week."""
MAX_TRACES = 10_000
"""Of Jaeger in dev's memory."""
WRITES = ("create_doc", "auto_configure")
READS = ("read", "view_index_metadata")
OWNS = (*READS, "write", "create_index")
SHIPPERS = (COLLECTOR, fluent_bit.ACCOUNT.user)


def components(graph: CallGraph, environment: Environment) -> Iterator[Component]:
    """Stores before what fills and shows them."""
    yield _elasticsearch(graph, environment)
    yield _jaeger(graph, environment)
    yield _tempo(graph, environment)
    yield _grafana(graph, environment)
    if environment.name != "dev":
        yield _kibana(graph, environment)
        yield _fluent_bit(graph, environment)


def links(_: CallGraph, environment: Environment) -> Iterator[Link]:
    """Who writes to the stores, who reads them, and what they need of each other."""
    yield Link(source=_pods(COLLECTOR), target=_pods("jaeger", jaeger.OTLP_PORT))
    yield Link(source=_pods(COLLECTOR), target=_pods("tempo", tempo.OTLP_PORT))
    yield Link(source=_pods("tempo"), target=PROMETHEUS.model_copy(update={"ports": (targets.PROMETHEUS_PORT,)}))
    yield from _grafana_links()
    for source in _index_clients(environment):
        yield Link(source=source, target=_index())
    for name, port in (("jaeger", jaeger.METRICS_PORT), ("tempo", tempo.HTTP_PORT), ("grafana", grafana.PORT)):
        yield Link(source=PROMETHEUS, target=_pods(name, port))
    if environment.name != "dev":
        yield from _replicated_links(environment)


def _grafana_links() -> Iterator[Link]:
    shown = {
        targets.PROMETHEUS: targets.PROMETHEUS_PORT,
        targets.ALERTMANAGER: targets.ALERTMANAGER_PORT,
        "tempo": tempo.HTTP_PORT,
        "jaeger": jaeger.QUERY_PORT,
    }
    for name, port in shown.items():
        yield Link(source=_pods("grafana"), target=_pods(name, port))


def _replicated_links(environment: Environment) -> Iterator[Link]:
    nodes = _index(elasticsearch.TRANSPORT_PORT)
    yield Link(source=nodes.model_copy(update={"ports": ()}), target=nodes)
    yield Link(source=_pods("kibana-setup"), target=_pods("kibana", kibana.PORT))
    shippers = Peer(namespace=NODE_AGENTS, name="fluent-bit", ports=(fluent_bit.PORT,))
    yield Link(source=PROMETHEUS, target=shippers)
    if backups := environment.settings.backups:
        store = AddressBlock(name="backup-store", cidr=backups.network, ports=(backup_store().port,))
        yield Link(source=_pods("tempo"), target=store)


def _index_clients(environment: Environment) -> Iterator[Peer]:
    yield Peer(namespace=DATA, name="elasticsearch-setup", ports=())
    yield _pods("grafana")
    yield _pods(COLLECTOR)
    if environment.name != "dev":
        yield from map(_pods, ("jaeger", "jaeger-retention", "kibana"))
        yield Peer(namespace=NODE_AGENTS, name="fluent-bit", ports=())


def _pods(name: str, *ports: int) -> Peer:
    return Peer(namespace=OBSERVABILITY, name=name, ports=ports)


def _index(port: int = elasticsearch.HTTP_PORT) -> Peer:
    return Peer(namespace=DATA, name=_address().service, ports=(port,))


def _address() -> InCluster:
    (address,) = (found for found in dependencies.ELASTICSEARCH.addresses if isinstance(found, InCluster))
    return address


def _url(name: str, port: int, namespace: str = OBSERVABILITY) -> str:
    return f"http://{name}.{namespace}.{CLUSTER_DOMAIN}:{port}"


def _index_url() -> str:
    return _url(_address().service, elasticsearch.HTTP_PORT, DATA)


def _peers(
    graph: CallGraph, environment: Environment, name: str
) -> tuple[tuple[NetworkEnd, ...], tuple[NetworkEnd, ...]]:
    ways = list(links(graph, environment))
    return tuple(link_ingress(ways, name)), tuple(link_egress(ways, name))


def _daily(rate: float, size: Bytes) -> Bytes:
    return Bytes.of_units(round(rate * DAY.seconds * size.units))


def kept_spans(graph: CallGraph, environment: Environment) -> float:
    """Spans per second that are kept here."""
    return spans(graph) * environment.traffic * environment.settings.trace_sample_ratio


def _streams(graph: CallGraph, environment: Environment) -> Iterator[Stream]:
    """Logs are on two nodes; traces on one, for Tempo has them too."""
    daily = _daily(log_lines(graph) * environment.traffic, LINE_SIZE)
    copies = 1 if environment.name == "dev" else N_PLUS_ONE
    yield Stream(name=LOGS, daily=daily, retention=LOG_RETENTION, copies=copies)
    if environment.name != "dev":
        yield _trace_stream(graph, environment)


def _trace_stream(graph: CallGraph, environment: Environment) -> Stream:
    daily = _daily(kept_spans(graph, environment), SPAN_SIZE)
    return Stream(name=jaeger.TRACES, daily=daily, retention=TRACE_RETENTION)


def _users(graph: CallGraph, environment: Environment) -> Iterator[IndexUser]:
    callers = {edge.caller.name: edge.caller for edge in graph.edges_to(dependencies.ELASTICSEARCH)}
    for name, caller in callers.items():
        secret = SecretKeys(
            name=secret_name(caller, dependencies.ELASTICSEARCH), keys=dependencies.ELASTICSEARCH.credentials
        )
        yield IndexUser(account=Account(user=name, secret=secret), indices=(f"{name}-*",), privileges=OWNS)
    yield user(grafana.ACCOUNT.user, cluster=("monitor",), indices=(LOGS_PATTERN,), privileges=READS)
    shippers = SHIPPERS if environment.name != "dev" else (COLLECTOR,)
    for shipper in shippers:
        yield user(shipper, cluster=("monitor",), indices=(LOGS_PATTERN,), privileges=WRITES)
    if environment.name != "dev":
        own = {"indices": (jaeger.INDICES,), "privileges": (*OWNS, "manage")}
        yield user(jaeger.ACCOUNT.user, cluster=("monitor", "manage_index_templates"), **own)
        yield from kibana.USERS


def _elasticsearch(graph: CallGraph, environment: Environment) -> Elasticsearch:
    dev = environment.name == "dev"
    ingress, egress = _peers(graph, environment, _address().service)
    callers = datastore_ingress(graph, dependencies.ELASTICSEARCH, _address().port)
    users = tuple(_users(graph, environment))
    accounts = [SUPERUSER.secret, *(found.account.secret for found in users)]
    return Elasticsearch(
        name=_address().service,
        namespace=_address().namespace,
        image=environment.third_party_image(images.ELASTICSEARCH),
        sizing=environment.scaled(ELASTICSEARCH_SIZING if environment.name == "prod" else SMALL_ELASTICSEARCH),
        nodes=1 if dev else 3,
        storage=ELASTICSEARCH_STORAGE[environment.name],
        streams=tuple(_streams(graph, environment)),
        users=users,
        secrets=tuple(accounts if dev else [*accounts, elasticsearch.TRANSPORT]),
        ingress=(*callers, *ingress),
        egress=egress,
        setup_egress=_peers(graph, environment, "elasticsearch-setup")[1],
    )


def _jaeger(graph: CallGraph, environment: Environment) -> Jaeger:
    dev = environment.name == "dev"
    ingress, egress = _peers(graph, environment, "jaeger")
    index = InElasticsearch(
        url=_index_url(),
        stream=_trace_stream(graph, environment),
        image=environment.third_party_image(images.ELASTICSEARCH),
    )
    return Jaeger(
        name="jaeger",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.JAEGER),
        sizing=environment.scaled(JAEGER_SIZING),
        replicas=1 if dev else N_PLUS_ONE,
        storage=InMemory(max_traces=MAX_TRACES) if dev else index,
        secrets=() if dev else (jaeger.ACCOUNT.secret,),
        ingress=ingress,
        egress=egress,
        retention_egress=_peers(graph, environment, "jaeger-retention")[1],
    )


def _tempo(graph: CallGraph, environment: Environment) -> Tempo:
    ingress, egress = _peers(graph, environment, "tempo")
    bucket = environment.settings.trace_bucket
    endpoint = f"{backup_store().host}:{backup_store().port}"
    daily = _daily(kept_spans(graph, environment), BLOCK_SPAN_SIZE)
    return Tempo(
        name="tempo",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.TEMPO),
        sizing=environment.scaled(TEMPO_SIZING),
        storage=TEMPO_STORAGE[environment.name],
        stream=Stream(name=jaeger.TRACES, daily=daily, retention=BLOCK_RETENTION[environment.name]),
        bucket=Bucket(bucket=bucket, endpoint=endpoint) if bucket else None,
        remote_write=tuple(f"{url}/api/v1/write" for url in prometheus_urls(environment)),
        secrets=(tempo.CREDENTIALS,) if bucket else (),
        ingress=ingress,
        egress=egress,
    )


def prometheus_urls(environment: Environment) -> Iterator[str]:
    """Of each replica of Prometheus by itself."""
    for index in range(1 if environment.name == "dev" else N_PLUS_ONE):
        host = f"{targets.PROMETHEUS}-{index}.{targets.PROMETHEUS}-replicas"
        yield _url(host, targets.PROMETHEUS_PORT)


def _grafana(graph: CallGraph, environment: Environment) -> Grafana:
    ingress, egress = _peers(graph, environment, "grafana")
    return Grafana(
        name="grafana",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.GRAFANA),
        sizing=environment.scaled(GRAFANA_SIZING),
        sources=Sources(
            prometheus=_url(targets.PROMETHEUS, targets.PROMETHEUS_PORT),
            alertmanager=_url(targets.ALERTMANAGER, targets.ALERTMANAGER_PORT),
            tempo=_url("tempo", tempo.HTTP_PORT),
            jaeger=_url("jaeger", jaeger.QUERY_PORT),
            elasticsearch=_index_url(),
        ),
        dashboards=(platform_dashboard(), service_dashboard(service.name for service in graph.services)),
        secrets=(grafana.SECRET, grafana.ACCOUNT.secret),
        ingress=ingress,
        egress=egress,
    )


def _kibana(graph: CallGraph, environment: Environment) -> Kibana:
    ingress, egress = _peers(graph, environment, "kibana")
    return Kibana(
        name="kibana",
        namespace=OBSERVABILITY,
        image=environment.third_party_image(images.KIBANA),
        setup_image=environment.third_party_image(images.ELASTICSEARCH),
        sizing=KIBANA_SIZING,
        replicas=N_PLUS_ONE,
        elasticsearch=_index_url(),
        secrets=(kibana.ACCOUNT.secret, kibana.SETUP_USER.account.secret, kibana.ENCRYPTION),
        ingress=ingress,
        egress=egress,
        setup_egress=_peers(graph, environment, "kibana-setup")[1],
    )


def _fluent_bit(graph: CallGraph, environment: Environment) -> FluentBit:
    ingress, egress = _peers(graph, environment, "fluent-bit")
    return FluentBit(
        name="fluent-bit",
        namespace=NODE_AGENTS,
        image=environment.third_party_image(images.FLUENT_BIT),
        sizing=SHIPPER_SIZING,
        namespaces="voice-*",
        elasticsearch=f"{_address().service}.{DATA}.{CLUSTER_DOMAIN}",
        buffer=SHIPPER_BUFFER,
        secrets=(fluent_bit.ACCOUNT.secret,),
        ingress=ingress,
        egress=egress,
    )
