"""indexing-service: sagas index and delete documents, so that a crash never leaves half of a document.

Steps pass chunks and embeddings through the object storage, next to the document. The saga's journal holds only the
names of these objects. A deletion that cannot finish restores vectors and graph from these objects.

The last step of a deletion sets delete markers on the objects, in a versioned bucket. Removing the markers restores the
objects. Later the bucket's lifecycle rule deletes marked objects permanently.
"""

from __future__ import annotations

from voice_policies import Duration, Rate, Retry, Saga, SagaStep

from components.node import Replicas, Service, Sizing
from components.operation import Stage, hard, loop, operation, soft, stage
from stack.voiceassistant.catalog.defaults import LEAF_RETRY
from stack.voiceassistant.site import APPS

CHUNKS = 200
"""Largest number of chunks of one document. Typical: 50. Clients split larger documents before indexing."""
BATCHES = 20
"""Largest number of vector insertions of one document. Typical: 5."""
PATIENCE = Duration("10s")
"""Longest wait before the retry of a step. It is long, because nobody waits for a saga and a short outage may end."""

MARKED = "mark-failed, the compensation of begin, marks the document as failed"


def _step(
    name: str, attempt_timeout: str, calls: tuple[str, ...], undo: tuple[str, ...], **options: object
) -> SagaStep:
    """A step with two attempts. `undo` is a compensation, then its calls. `options` are other fields of `SagaStep`."""
    attempt, retry = Duration(attempt_timeout), Retry(max_retries=1, base_delay=PATIENCE, max_delay=PATIENCE)
    return SagaStep.model_validate(
        {
            **options,
            "name": name,
            "calls": calls,
            "compensation": undo[0] if undo else None,
            "compensation_calls": undo[1:],
            "timeout": attempt * retry.max_attempts + retry.longest_wait(),
            "attempt_timeout": attempt,
            "retry": retry,
        }
    )


READ, WRITE = "object-storage.read", "object-storage.write"
DELETE, RESTORE = "object-storage.delete", "object-storage.restore"
EMBED = "model-adapter.embed"
INSERT, DELETE_VECTORS = "vector-store-adapter.insert", "vector-store-adapter.delete"
BUILD, DELETE_GRAPH = "knowledge-graph-service.build", "knowledge-graph-service.delete"


def _compensation_call(call: str) -> str:
    """The name of a call that a compensation makes."""
    return f"{call}:undo"


def _compensation_stage(*calls: str, at_most: int) -> Stage:
    """The calls of compensations, which run only after a failure."""
    undoing = (
        soft(call, "the saga repeats the compensation, then waits for a person", purpose="undo") for call in calls
    )
    return loop(*undoing, at_most=at_most, typically=0)


INDEX = Saga(
    name="document-indexing",
    started_by="document.uploaded",
    steps=(
        _step("begin", "1s", ("postgresql.write",), ("mark-failed", "postgresql.write")),
        _step("split", "20s", (READ, WRITE), ("remove-chunks", _compensation_call(DELETE))),
        _step("embed", "110s", (EMBED, WRITE), ("remove-embeddings", _compensation_call(DELETE))),
        _step("insert-vectors", "30s", (READ, INSERT), ("remove-vectors", _compensation_call(DELETE_VECTORS))),
        _step(
            "build-graph", "10s", (READ, BUILD), ("remove-graph", _compensation_call(DELETE_GRAPH)), with_previous=True
        ),
        _step("mark-indexed", "1s", ("postgresql.write",), (), no_compensation_because=MARKED),
    ),
    timeout=Duration("15m"),
)
DELETION = Saga(
    name="document-deletion",
    started_by="document.deleted",
    steps=(
        _step(
            "delete-vectors",
            "30s",
            (DELETE_VECTORS,),
            ("restore-vectors", _compensation_call(READ), _compensation_call(INSERT)),
        ),
        _step(
            "delete-graph",
            "10s",
            (DELETE_GRAPH,),
            ("restore-graph", _compensation_call(READ), _compensation_call(BUILD)),
            with_previous=True,
        ),
        _step("delete-objects", "2s", (DELETE,), ("restore-objects", _compensation_call(RESTORE))),
    ),
    timeout=Duration("5m"),
)

INDEXING = Service(
    name="indexing-service",
    namespace=APPS,
    purpose="parse, chunk, embed, store documents (saga)",
    language="python",
    tier="batch",
    grpc_port=9000,
    http_port=8004,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=2, max=2),
    capacity=Rate("5/s"),
    connection_pool=5,
    operations=(
        operation(
            "index",
            stage(hard("postgresql.write", "with_key", retry=LEAF_RETRY)),
            loop(hard(READ, "idempotent", retry=LEAF_RETRY), at_most=3, typically=3),
            loop(hard(WRITE, "with_key"), at_most=2, typically=2),
            loop(hard(EMBED, "idempotent"), at_most=CHUNKS, typically=50),
            loop(hard(INSERT, "idempotent"), at_most=BATCHES, typically=5),
            stage(soft(BUILD, "the document is indexed without graph, the graph is built later", "idempotent")),
            _compensation_stage(DELETE, DELETE_VECTORS, DELETE_GRAPH, at_most=4),
            p95="60s",
            deadline="150s",
            background=True,
            consumes=("document.uploaded",),
            saga=INDEX,
        ),
        operation(
            "delete",
            stage(hard("postgresql.write", "with_key", retry=LEAF_RETRY)),
            stage(hard(DELETE_VECTORS, "idempotent"), hard(DELETE_GRAPH, "idempotent")),
            stage(hard(DELETE, "idempotent")),
            _compensation_stage(INSERT, at_most=BATCHES),
            _compensation_stage(READ, BUILD, RESTORE, at_most=3),
            p95="1s",
            deadline="60s",
            background=True,
            consumes=("document.deleted",),
            saga=DELETION,
        ),
    ),
)
