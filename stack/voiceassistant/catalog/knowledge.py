"""Knowledge: documents in, context out."""

from __future__ import annotations

from voice_policies import DegradedFeature, Rate

from components.node import Replicas, Service, Sizing
from components.operation import Stage, hard, operation, soft, stage
from stack.voiceassistant.catalog.defaults import INTERIOR_RETRY, LEAF_RETRY
from stack.voiceassistant.catalog.indexing import INDEXING
from stack.voiceassistant.targets import APPS

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
            "500ms",
            "4s",
            stage(hard("postgresql.read", "idempotent")),
            # The one interior hop that makes a second attempt: the shortest path with a user waiting at its end.
            stage(hard("retrieval-service.search", "idempotent", retry=INTERIOR_RETRY)),
        ),
        operation(
            "upload",
            "200ms",
            "1500ms",
            stage(hard("object-storage.write", "with_key")),
            stage(hard("postgresql.write", "with_key")),
            publishes=("document.uploaded", "document.deleted"),
        ),
    ),
)

_CONTEXT: tuple[Stage, ...] = (
    stage(soft("redis.access", "no semantic cache")),
    stage(soft("model-adapter.rewrite", "query as it is")),
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
    features=(DegradedFeature(name="query-rewriting", off_at="partial", fallback="query as it is"),),
    operations=(
        operation("context", "700ms", "3s", *_CONTEXT),
        operation("answer", "1700ms", "6s", *_CONTEXT, stage(hard("model-adapter.generate", "with_key"))),
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
        DegradedFeature(name="re-ranking", off_at="partial", fallback="fusion order"),
        DegradedFeature(name="graph-search", off_at="full", fallback="no graph hits"),
    ),
    operations=(
        operation(
            "search",
            "400ms",
            "1800ms",
            stage(hard("model-adapter.embed", "idempotent")),
            stage(
                hard("vector-store-adapter.search", "idempotent"),
                soft("elasticsearch.search", "vectors only"),
                soft("knowledge-graph-service.neighbours", "no graph hits"),
            ),
            stage(soft("model-adapter.rerank", "fusion order")),
        ),
    ),
)

VECTOR_STORE_ADAPTER = Service(
    name="vector-store-adapter",
    namespace=APPS,
    purpose="the only door to the vector store",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8003,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("512Mi", "1Gi")),
    replicas=Replicas(min=2, max=6),
    capacity=Rate("150/s"),
    operations=(
        operation("search", "100ms", "600ms", stage(hard("vector-store.search", "idempotent", retry=LEAF_RETRY))),
        operation("insert", "200ms", "1200ms", stage(hard("vector-store.insert", "idempotent", retry=LEAF_RETRY))),
        operation("delete", "200ms", "1200ms", stage(hard("vector-store.delete", "idempotent", retry=LEAF_RETRY))),
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
        operation("neighbours", "100ms", "600ms", stage(hard("graph-store.read", "idempotent", retry=LEAF_RETRY))),
        operation("build", "500ms", "2200ms", stage(hard("graph-store.write", "idempotent", retry=LEAF_RETRY))),
        operation("delete", "500ms", "2200ms", stage(hard("graph-store.write", "idempotent", retry=LEAF_RETRY))),
    ),
)

SERVICES = (KNOWLEDGE, RAG, RETRIEVAL, INDEXING, VECTOR_STORE_ADAPTER, KNOWLEDGE_GRAPH)
