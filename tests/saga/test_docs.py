from __future__ import annotations

import re
from pathlib import Path

import voice_saga
from voice_policies import Duration, Saga, SagaStep
from voice_saga.metrics import METRICS

from tests.bundles import bundle, call, mount
from tests.examples import DOCUMENTS, run_examples


def test_the_examples_of_the_documentation_run(tmp_path: Path, database: str, redis_port: int, temporal: str) -> None:
    steps = (
        SagaStep(name="store-chunks", compensation="forget-chunks"),
        SagaStep(name="embed", compensation="forget-embeddings"),
    )
    indexing = Saga(name="indexing", steps=steps, timeout=Duration("1m"), started_by="document.uploaded")
    mount(tmp_path, bundle(call("model-adapter.embed"), sagas=(indexing,)))
    places = {
        "/etc/voice/policy": str(tmp_path),
        "/var/lib/voice/sagas.db": str(tmp_path / "sagas.db"),
        "postgresql://postgresql/indexing": database,
        "redis://events:6379": f"redis://127.0.0.1:{redis_port}",
        "temporal-frontend:7233": temporal,
    }
    assert run_examples("sagas.md", places) == 7


def test_the_errors_and_metrics_in_the_document_exist() -> None:
    text = (DOCUMENTS / "sagas.md").read_text()
    for name in re.findall(r"`(\w+Error)`", text):
        assert hasattr(voice_saga, name), name
    for name in re.findall(r"`(voice_saga_\w+)", text):
        assert name in {metric.name for metric in METRICS}, name
