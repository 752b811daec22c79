"""Dependencies that we did not write: datastores, providers, infrastructure.

Latency is the P95 of each operation at the callee. The deadline bounds one run of the operation, and is at most ten
times the latency.

Availabilities are the platform's targets: PostgreSQL, Redis, gateway and DNS 99.99 %, other infrastructure 99.9 %, each
provider 99.5 %. External hosts are reached through an egress proxy.
"""

from __future__ import annotations

from voice_policies import Duration, Protocol, Ratio

from components.node import Client, Dependency, Host, InCluster
from components.operation import Operation, operation
from stack.voiceassistant.site import DATA, EGRESS_PROXIES, STORE_LABEL

INFRASTRUCTURE = Ratio("99.9%")
FOUR_NINES = Ratio("99.99%")
PROVIDER = Ratio("99.5%")
PASSWORD = ("password",)
REDIS_CLIENTS = (
    Client(library="redis-py", language="python", retries=0),
    Client(library="go-redis", language="go", retries=0),
)


def _outside(
    name: str,
    host: str,
    protocol: Protocol,
    purpose: str,
    *operations: Operation,
    port: int = 443,
    availability: Ratio = INFRASTRUCTURE,
    clients: tuple[Client, ...] = (),
) -> Dependency:
    return Dependency(
        name=name,
        kind="infrastructure" if availability == INFRASTRUCTURE else "provider",
        purpose=purpose,
        protocol=protocol,
        addresses=(Host(host=host, port=port, egress=EGRESS_PROXIES[0]),),
        availability=availability,
        credentials=("api-key",),
        clients=clients,
        operations=operations,
    )


POSTGRESQL = Dependency(
    name="postgresql",
    restart=Duration("30s"),  # a readiness probe fails, then CloudNativePG elects and promotes a replica
    kind="datastore",
    purpose="system of record, reached through its pooler",
    protocol="postgresql",
    addresses=(InCluster(namespace=DATA, service="postgresql-pooler", port=5432, label=STORE_LABEL),),
    availability=FOUR_NINES,
    credentials=PASSWORD,
    database=True,
    operations=(operation("read", p95="20ms", deadline="100ms"), operation("write", p95="30ms", deadline="200ms")),
)
REDIS = Dependency(
    name="redis",
    restart=Duration("10s"),  # Sentinels wait 5 s, vote and promote a replica; then HAProxy's check finds it
    kind="datastore",
    purpose="cache without durable data: sessions, contexts, shared rate limits",
    protocol="redis",
    addresses=(InCluster(namespace=DATA, service="redis", port=6379),),
    availability=FOUR_NINES,
    credentials=PASSWORD,
    clients=REDIS_CLIENTS,
    evicts=True,
    operations=(operation("access", p95="3ms", deadline="20ms"),),
)
EVENTS = Dependency(
    name="events",
    # Assumed: the container runs after 5 s, and loads a log of 100 MiB in 5 s at REPLAY_RATE, 20 MiB/s. The largest log
    # loads in 92 s (2 × 0.6 × 1536 MiB ÷ 20 MiB/s). A break of 92 s would refuse calls to a store that is usually back
    # sooner. While a larger log loads, each probe of a caller's breaker fails and begins another break. A break lasts
    # at most 2 × 10 s + 10 % jitter = 22 s. So callers reach the store at most 22 s after the load ends.
    restart=Duration("10s"),
    kind="datastore",
    purpose="event streams and counters of token budgets, on a separate durable Valkey",
    protocol="redis",
    addresses=(InCluster(namespace=DATA, service="events", port=6379),),
    availability=INFRASTRUCTURE,
    credentials=PASSWORD,
    clients=REDIS_CLIENTS,
    operations=tuple(operation(name, p95="10ms", deadline="100ms") for name in ("append", "consume", "reserve")),
)
ELASTICSEARCH = Dependency(
    name="elasticsearch",
    restart=Duration("45s"),  # the JVM starts, and the node recovers its shards
    kind="datastore",
    purpose="full-text index (BM25)",
    protocol="http",
    addresses=(InCluster(namespace=DATA, service="elasticsearch", port=9200),),
    availability=INFRASTRUCTURE,
    credentials=PASSWORD,
    clients=(Client(library="elasticsearch-py", retries=0),),
    operations=(operation("search", p95="80ms", deadline="250ms"),),
)
VECTOR_STORE = _outside(
    "vector-store",
    "milvus.voicehelper.internal",
    "grpc",
    "embeddings (Milvus, external)",
    operation("search", p95="60ms", deadline="250ms"),
    operation("insert", p95="150ms", deadline="500ms"),
    operation("delete", p95="150ms", deadline="500ms"),
    port=19530,
    clients=(Client(library="pymilvus", retries=0),),
)
GRAPH_STORE = _outside(
    "graph-store",
    "neo4j.voicehelper.internal",
    "https",
    "entities and relations (Neo4j, external)",
    operation("read", p95="60ms", deadline="250ms"),
    operation("write", p95="300ms", deadline="1s"),
)
COLUMN_STORE = _outside(
    "column-store",
    "clickhouse.voicehelper.internal",
    "https",
    "events for reports (ClickHouse, external)",
    operation("read", p95="500ms", deadline="1s"),
)
OBJECT_STORAGE = _outside(
    "object-storage",
    "objects.voicehelper.internal",
    "https",
    "uploaded documents (S3-compatible, external, in a versioned bucket)",
    operation("read", p95="60ms", deadline="500ms"),
    operation("write", p95="100ms", deadline="800ms"),
    operation("delete", p95="60ms", deadline="500ms"),
    operation("restore", p95="60ms", deadline="500ms"),
    clients=(
        Client(library="boto3", language="python", retries=0),
        Client(library="aws-sdk-go-v2", language="go", retries=0),
    ),
)
EXTERNAL_TOOLS = _outside(
    "external-tools",
    "tools.voicehelper.internal",
    "https",
    "tools that agents may use, behind one gateway",
    operation("invoke", p95="600ms", deadline="2s"),
)
SMTP = _outside(
    "smtp-provider",
    "smtp.voicehelper.internal",
    "smtp",
    "e-mail delivery",
    operation("send", p95="800ms", deadline="5s"),
    # TLS from the first byte (RFC 8314). STARTTLS begins in clear text, so a proxy would see no host name at first.
    port=465,
    availability=PROVIDER,
)
SMS = _outside(
    "sms-provider",
    "sms.voicehelper.internal",
    "https",
    "SMS delivery",
    operation("send", p95="500ms", deadline="3s"),
    availability=PROVIDER,
)
DEPENDENCIES = (
    POSTGRESQL,
    REDIS,
    EVENTS,
    ELASTICSEARCH,
    VECTOR_STORE,
    GRAPH_STORE,
    COLUMN_STORE,
    OBJECT_STORAGE,
    EXTERNAL_TOOLS,
    SMTP,
    SMS,
)
