from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar

import yaml
from voice_policies import Bytes, Duration

from components.component import Component
from components.container import Image
from components.links import Link, Links, peer
from components.network_policy import Peer
from components.observability import grafana, jaeger, kibana
from components.observability.blackbox_exporter import BlackboxExporter
from components.observability.collector_config import HTTP_PORT
from components.observability.dashboards import Dashboard, Panel, Row, Variable, metrics
from components.observability.elasticsearch import Elasticsearch
from components.observability.elasticsearch_setup import LOGS, LOGS_PATTERN, IndexUser, user
from components.observability.fluent_bit import FluentBit
from components.observability.grafana import Grafana, Sources
from components.observability.jaeger import TRACES, InElasticsearch, InMemory, Jaeger
from components.observability.kibana import Kibana
from components.observability.prometheus import Prometheus
from components.observability.scrape_jobs import ScrapeTarget
from components.observability.tempo import Bucket, Tempo
from components.retention import Stream
from components.scrape import CONNECTS, Scrape
from tests.toy import SIZING

Kind = TypeVar("Kind", bound=Component)
VARIANTS = ("single", "replicated")
"""`single`: one replica, traces in memory or on a volume. `replicated`: several replicas of most servers, traces in
Elasticsearch or in a bucket, and also Kibana and Fluent Bit."""
SERVICES = ("orders", "prices")
INDEX_URL = "http://elasticsearch.stores.svc.cluster.local:9200"
COLLECTOR = Peer(namespace="watch", name="collector", ports=(HTTP_PORT,))
ROOMY = SIZING.of(cpu=("1", "2"), memory=("512Mi", "512Mi"))


BOARD = Dashboard(
    uid="shop",
    title="Shop",
    variables=(Variable(name="service", label="Service", values=SERVICES),),
    rows=(
        Row(
            title="Now",
            panels=(
                metrics("Load", "Requests.", {"{{job}}": "sum by (job) (rate(up[$__rate_interval]))"}, "reqps"),
                metrics("Down", "Pods that are down.", {"": "count(up == 0)"}, shows="gauge", red_from=1, width=6),
                metrics("Ready", "Pods that are up.", {"": "count(up == 1)"}, shows="number", red_below=1, width=6),
            ),
        ),
        Row(
            title="Details",
            panels=(
                Panel(title="Traces", description="Latest traces.", shows="traces", width=24),
                Panel(title="Logs", description="Latest lines.", shows="logs", width=24),
            ),
        ),
    ),
)
"""A dashboard with a panel of each kind."""


@cache
def the(kind: type[Kind], variant: str = "replicated") -> Kind:
    (found,) = (each for each in _servers(replicated=variant == "replicated") if isinstance(each, kind))
    return found


def rendered(component: Component, kind: str) -> list[dict[str, Any]]:
    return [dict(resource) for resource in component.resources() if resource["kind"] == kind]


def _servers(*, replicated: bool) -> Iterator[Component]:
    common: dict[str, Any] = {
        "namespace": "watch",
        "image": Image(reference="server:1"),
        "sizing": ROOMY,
        "links": Links([Link(peer("agents", "fluent-bit"), COLLECTOR)]),
    }
    copies = 2 if replicated else 1
    traces = Stream(name=TRACES, daily=Bytes("1Gi"), retention=Duration("7d"), copies=copies)
    logs = Stream(name=LOGS, daily=Bytes("2Gi"), retention=Duration("14d"), copies=copies)
    yield Elasticsearch(
        **{**common, "namespace": "stores"},
        name="elasticsearch",
        nodes=3 if replicated else 1,
        storage=Bytes("1Ti"),
        streams=(logs, traces) if replicated else (logs,),
        users=tuple(_users(replicated=replicated)),
    )
    index = InElasticsearch(url=INDEX_URL, stream=traces, image=Image(reference="elasticsearch:1"))
    yield Jaeger(
        **common,
        name="jaeger",
        replicas=copies,
        storage=index if replicated else InMemory(max_traces=2_000),
    )
    yield Tempo(
        **common,
        name="tempo",
        storage=Bytes("5Gi"),
        stream=Stream(name="blocks", daily=Bytes("1Gi"), retention=Duration("2d")),
        bucket=Bucket(bucket="traces", endpoint="objects.example.com:443", image=Image(reference="elasticsearch:1"))
        if replicated
        else None,
        remote_write=tuple(f"http://prometheus-{index}:9090/api/v1/write" for index in range(copies)),
    )
    yield Grafana(
        **common,
        name="grafana",
        sources=Sources(
            prometheus="http://prometheus:9090",
            alertmanager="http://alertmanager:9093",
            tempo="http://tempo:3200",
            jaeger="http://jaeger:16686",
            elasticsearch=INDEX_URL,
        ),
        dashboards=(BOARD,),
    )
    yield BlackboxExporter(
        **common, name="blackbox-exporter", modules=(CONNECTS,), server_name="shop.example.com" if replicated else None
    )
    yield Prometheus(
        **common,
        name="prometheus",
        replicas=copies,
        storage=Bytes("100Gi"),
        retention=Duration("7d"),
        late=Duration("1h"),
        cluster="toy",
        targets=tuple(ScrapeTarget(name=name, namespace="shop", pods=2, scrape=Scrape(port=8080)) for name in SERVICES),
        prober="blackbox-exporter:9115",
        alertmanagers=("alertmanager-0:9093",),
        groups=(),
        runbook="https://runbook.example.com/alerts",
    )
    if replicated:
        yield Kibana(
            **common,
            name="kibana",
            setup_image=Image(reference="elasticsearch:1"),
            replicas=copies,
            elasticsearch=INDEX_URL,
        )
        yield FluentBit(
            **{**common, "namespace": "agents"},
            name="fluent-bit",
            namespaces="shop-*",
            collector=f"{COLLECTOR.name}.watch.svc.cluster.local",
            buffer=Bytes("1Gi"),
        )


def _users(*, replicated: bool) -> Iterator[IndexUser]:
    yield user("orders", indices=("orders-*",), privileges=("read", "write"))
    yield user(grafana.ACCOUNT.user, cluster=("monitor",), indices=(LOGS_PATTERN,), privileges=("read",))
    if replicated:
        yield user(jaeger.ACCOUNT.user, indices=(jaeger.INDICES,), privileges=("read", "write", "manage"))
        yield from kibana.USERS


def documents(variant: str) -> dict[str, Any]:
    """Name of a schema in `test_schemas` → the parsed configuration file that this schema describes."""
    graphics = the(Grafana, variant).files
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(graphics["grafana.ini"])
    found = {
        "jaeger": yaml.safe_load(the(Jaeger, variant).files["jaeger.json"]),
        "tempo": yaml.safe_load(the(Tempo, variant).files["tempo.json"]),
        "elasticsearch": yaml.safe_load(the(Elasticsearch, variant).files["elasticsearch.yml"]),
        "grafana": {name: dict(ini[name]) for name in ini.sections()},
        "data-sources": yaml.safe_load(graphics["datasources.yaml"]),
        "providers": yaml.safe_load(graphics["dashboards.yaml"]),
        "blackbox-exporter": json.loads(the(BlackboxExporter, variant).files["blackbox.json"]),
    }
    if variant == "replicated":
        found["kibana"] = yaml.safe_load(the(Kibana, variant).files["kibana.yml"])
        found["fluent-bit"] = yaml.safe_load(the(FluentBit, variant).files["fluent-bit.yaml"])
    return found
