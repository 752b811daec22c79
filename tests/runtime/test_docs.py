"""The examples of docs/runtime.md run, in order, as one program."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import voice_runtime
from prometheus_client import REGISTRY
from voice_policies import CircuitBreaker, Degradation, DegradedFeature, Duration, Timeout

from tests.runtime.bundles import bundle, call, mount, operation

DOCUMENT = Path(__file__).parents[2] / "docs" / "runtime.md"
MOUNTED = "/etc/voice/policy"


def test_the_examples_of_the_documentation_run(tmp_path: Path) -> None:
    citations = DegradedFeature(name="citations", off_at="partial", fallback="answer without citations")
    timeout = Timeout(attempt=Duration("700ms"), overall=Duration("700ms"))
    mount(
        tmp_path,
        bundle(
            call("rag-engine.context", necessity="soft", fallback="no citations", timeout=timeout),
            call("model-adapter.generate", circuit_breaker=CircuitBreaker()),
            inbound=(operation("run"),),
            degradation=Degradation(features=(citations,)),
        ),
    )
    examples = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(examples) == 12
    names: dict[str, Any] = {}
    try:
        with asyncio.Runner() as runner:
            for example in examples:
                source = example.replace(MOUNTED, str(tmp_path))
                code = compile(source, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)  # noqa: S307  # our own documentation
                if inspect.isawaitable(result):
                    runner.run(_finish(result))
    finally:
        for collector in list(REGISTRY._collector_to_names):  # noqa: SLF001  # no public way to list them
            if type(collector).__name__ == "RuntimeCollector":
                REGISTRY.unregister(collector)


async def _finish(example: Awaitable[Any]) -> None:
    await example


def test_the_documentation_names_what_there_is() -> None:
    text = DOCUMENT.read_text()
    for name in re.findall(r"`(\w+Error)`", text):
        assert hasattr(voice_runtime, name) or hasattr(builtins, name), name
