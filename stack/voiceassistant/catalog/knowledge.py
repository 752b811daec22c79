"""Knowledge: stores documents and answers with context."""

from __future__ import annotations

from voice_policies import DegradedFeature, Rate

from components.node import Replicas, Service, Sizing
from components.operation import Stage, hard, operation, soft, stage
from stack.voiceassistant.catalog.defaults import INTERIOR_RETRY, LEAF_RETRY
from stack.voiceassistant.catalog.indexing import INDEXING
from stack.voiceassistant.site import APPS

KNOWLEDGE = Service(
    name="knowledge-service",
    namespace=APPS,
    purpose="knowledge bases, document metadata; starts indexing",
    language="go",
    tier="standard",
    grpc_port=9000,
    http_port=8080,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=2, max=6),
    capacity=Rate("150/s"),
    connection_pool=10,
    operations=(
        operation(
            "search",
            stage(hard("postgresql.read", "idempotent")),
            # The only call between services that is retried. It is on the shortest path from a user to
            # retrieval-service, and the user waits for it.
            stage(hard("retrieval-service.search", "idempotent", retry=INTERIOR_RETRY)),
            p95="500ms",
            deadline="4s",
        ),
        operation(
            "upload",
            stage(hard("object-storage.write", "with_key")),
            stage(hard("postgresql.write", "with_key")),
            p95="200ms",
            deadline="1500ms",
            publishes=("document.uploaded", "document.deleted"),
        ),
    ),
)

_CONTEXT: tuple[Stage, ...] = (
    stage(soft("redis.access", "no semantic cache")),
    stage(soft("model-adapter.rewrite", "the original query")),
    stage(hard("retrieval-service.search", "idempotent")),
)

RAG = Service(
    name="rag-engine",
    namespace=APPS,
    purpose="query rewriting, retrieval, context, answers",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8006,
    sizing=Sizing.of(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    replicas=Replicas(min=3, max=15),
    capacity=Rate("20/s"),
    features=(DegradedFeature(name="query-rewriting", off_at="partial", fallback="the original query"),),
    operations=(
        operation("context", *_CONTEXT, p95="700ms", deadline="3s"),
        operation("answer", *_CONTEXT, stage(hard("model-adapter.generate", "with_key")), p95="1700ms", deadline="6s"),
    ),
)

RETRIEVAL = Service(
    name="retrieval-service",
    namespace=APPS,
    purpose="vector + BM25 + graph search, fusion, re-rank",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8012,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=3, max=10),
    capacity=Rate("60/s"),
    features=(
        DegradedFeature(name="re-ranking", off_at="partial", fallback="hits in fusion order"),
        DegradedFeature(name="graph-search", off_at="full", fallback="no graph hits"),
    ),
    operations=(
        operation(
            "search",
            stage(hard("model-adapter.embed", "idempotent")),
            stage(
                hard("vector-store-adapter.search", "idempotent"),
                soft("elasticsearch.search", "vector hits only"),
                soft("knowledge-graph-service.neighbours", "no graph hits"),
            ),
            stage(soft("model-adapter.rerank", "hits in fusion order")),
            p95="400ms",
            deadline="1800ms",
        ),
    ),
)

VECTOR_STORE_ADAPTER = Service(
    name="vector-store-adapter",
    namespace=APPS,
    purpose="the only caller of the vector store",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8003,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("512Mi", "1Gi")),
    replicas=Replicas(min=2, max=6),
    capacity=Rate("150/s"),
    operations=(
        operation(
            "search", stage(hard("vector-store.search", "idempotent", retry=LEAF_RETRY)), p95="100ms", deadline="600ms"
        ),
        operation(
            "insert", stage(hard("vector-store.insert", "idempotent", retry=LEAF_RETRY)), p95="200ms", deadline="1200ms"
        ),
        operation(
            "delete", stage(hard("vector-store.delete", "idempotent", retry=LEAF_RETRY)), p95="200ms", deadline="1200ms"
        ),
    ),
)

KNOWLEDGE_GRAPH = Service(
    name="knowledge-graph-service",
    namespace=APPS,
    purpose="entities and relations",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8006,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=2, max=8),
    capacity=Rate("100/s"),
    operations=(
        operation(
            "neighbours", stage(hard("graph-store.read", "idempotent", retry=LEAF_RETRY)), p95="100ms", deadline="600ms"
        ),
        operation(
            "build", stage(hard("graph-store.write", "idempotent", retry=LEAF_RETRY)), p95="500ms", deadline="2200ms"
        ),
        operation(
            "delete", stage(hard("graph-store.write", "idempotent", retry=LEAF_RETRY)), p95="500ms", deadline="2200ms"
        ),
    ),
)

SERVICES: tuple[Service, ...] = (KNOWLEDGE, RAG, RETRIEVAL, INDEXING, VECTOR_STORE_ADAPTER, KNOWLEDGE_GRAPH)
