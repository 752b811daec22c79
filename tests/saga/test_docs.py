from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import voice_saga
from voice_policies import Duration, Saga, SagaStep
from voice_saga.metrics import METRICS

from tests.bundles import bundle, call, mount

DOCUMENT = Path(__file__).parents[2] / "docs" / "sagas.md"


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
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(examples) == 7
    names: dict[str, Any] = {}
    with asyncio.Runner() as runner:
        for example in examples:
            for place, here in places.items():
                example = example.replace(place, here)  # noqa: PLW2901  # the same example with the addresses of the test
            code = compile(example, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)  # noqa: S307  # our own documentation
            if inspect.isawaitable(result):
                runner.run(_finish(result))


async def _finish(example: Awaitable[Any]) -> None:
    await asyncio.wait_for(example, 60)


def test_the_errors_and_metrics_in_the_document_exist() -> None:
    text = DOCUMENT.read_text()
    for name in re.findall(r"`(\w+Error)`", text):
        assert hasattr(voice_saga, name), name
    for name in re.findall(r"`(voice_saga_\w+)", text):
        assert name in {metric.name for metric in METRICS}, name
