"""The toy tenant: two services and one store. The engine renders, audits and compares it without VoiceAssistant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any

from voice_policies import Bytes, Cpu, Duration, Rate, Ratio

from components import images
from components.links import Links
from components.namespace import Quota
from components.network_policy import Peer
from components.node import Dependency, InCluster, Replicas, Service, Sizing
from components.operation import hard, operation, soft, stage
from components.valkey.access import AclUser
from components.valkey.server import PORT, Valkey
from stack.model import microservices
from stack.model.alerting import Alerting
from stack.model.call_graph import CallGraph
from stack.model.caller_secrets import caller_secret
from stack.model.catalogue import Catalogue
from stack.model.environments import Environment
from stack.model.image_lock import UNLOCKED
from stack.model.profile import AcceptedFinding, DatabaseLimits, Defaults, MetricsStorage, Profile, ServerSize
from stack.model.settings import Settings
from stack.model.site import Site
from stack.model.tenant import Builder, Tenant, Tier

SIZING = Sizing.of(cpu=("100m", "200m"), memory=("64Mi", "128Mi"))
SITE = Site(
    collector=Peer(namespace="watch", name="collector", ports=(4317,)),
    prometheus=Peer(namespace="watch", name="prometheus", ports=(9090,)),
    prober=Peer(namespace="watch", name="prober", ports=(9115,)),
    node_agents="agents",
    egress="egress",
    private_domain=".internal",
    peered_network="10.9.0.0/16",
    own_availability={"core": Ratio("99.99%"), "standard": Ratio("99.95%"), "batch": Ratio("99.9%")},
    egress_availability=Ratio("99.9%"),
)
STOCK = Dependency(
    name="stock",
    kind="datastore",
    purpose="counts the articles in stock",
    protocol="redis",
    addresses=(InCluster(namespace="stores", service="stock", port=PORT),),
    availability=Ratio("99.99%"),
    credentials=("password",),
    operations=(operation("read", p95="3ms", deadline="20ms"), operation("take", p95="3ms", deadline="20ms")),
)
_SERVICE: dict[str, Any] = {
    "namespace": "shop",
    "grpc_port": 9000,
    "http_port": 8080,
    "sizing": SIZING,
    "replicas": Replicas(min=2, max=4),
    "capacity": Rate("100/s"),
}
ORDERS = Service(
    **_SERVICE,
    name="orders",
    purpose="takes orders",
    language="python",
    tier="core",
    operations=(
        operation(
            "place",
            stage(soft("prices.list", "the price of yesterday")),
            stage(hard("stock.take", "never")),
            p95="50ms",
            deadline="1s",
            load="5/s",
        ),
    ),
)
PRICES = Service(
    **_SERVICE,
    name="prices",
    purpose="knows prices",
    language="go",
    tier="standard",
    operations=(operation("list", stage(hard("stock.read", "idempotent")), p95="20ms", deadline="100ms"),),
)


def stores(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    if isinstance(stock := graph.nodes.get("stock"), Dependency):
        yield partial(_valkey, graph, environment, links, stock)


def _valkey(graph: CallGraph, environment: Environment, links: Links, stock: Dependency) -> Valkey:
    secrets = {edge.caller.name: caller_secret(edge.caller, stock) for edge in graph.edges_to(stock)}
    return Valkey(
        name="stock",
        namespace="stores",
        image=environment.third_party_image(images.VALKEY),
        sizing=environment.server("stock").sizing,
        users=tuple(AclUser(name=name, secret=secret, rules="~* +@all") for name, secret in secrets.items()),
        links=links,
    )


QUOTA = Quota(
    cpu_requests=Cpu("4"), cpu_limits=Cpu("8"), memory_requests=Bytes("4Gi"), memory_limits=Bytes("8Gi"), pods=40
)
PROFILE = Profile(
    name="dev",
    defaults=Defaults(
        log_level="debug",
        trace_sample_ratio=Ratio("100%"),
        mesh=False,
        metrics=MetricsStorage(retention=Duration("1d"), storage=Bytes("1Gi")),
        ingress_grace=Duration("5s"),
    ),
    accepted_findings=tuple(
        AcceptedFinding(rule=rule, path=path, reason="a toy is small", expires=date(2999, 12, 31))
        for rule, path in (("E01", "circuit_breaker without mesh"), ("A03", "stores/stock: replicas"))
    ),
    service_replicas="declared",
    load_share=1,
    quotas={"shop": QUOTA, "stores": QUOTA},
    database=DatabaseLimits(poolers=0, pool_size=10),
    servers={"stock": ServerSize(sizing=SIZING)},
    load_balancer=False,
    protects_data=False,
    stand_in_secrets=True,
    strict=False,
)
TENANT = Tenant(
    name="Toy",
    catalogue=Catalogue(source="tests/toy.py", site=SITE, nodes=(ORDERS, PRICES, STOCK)),
    tiers=(Tier(microservices.components), Tier(stores)),
    alerting=Alerting(
        source="tests/toy.py",
        objective_alerts=(),
        platform_alerts=(),
        store_alerts={},
        severities={"core": "critical", "standard": "warning", "batch": "warning"},
        teams={"sales": (ORDERS, PRICES)},
        platform_team="platform",
    ),
    profiles={"dev": PROFILE},
)
ENVIRONMENT = Environment(
    settings=Settings.model_validate(
        {
            **dict(PROFILE.defaults),
            "environment": "dev",
            "profile": "dev",
            "node_pool": {"nodes": 1, "zones": 1, "cpu": "8", "memory": "16Gi"},
            "api_server": {"cidr": "10.0.0.1/32"},
            "nodes": "10.0.0.0/24",
        }
    ),
    profile=PROFILE,
    images=UNLOCKED,
)
