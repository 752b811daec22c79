import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from voice_runtime import CalleeError, Runtime, SoftCallError
from voice_runtime.prometheus import RuntimeCollector

pytestmark = pytest.mark.cluster


def check(promtool: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)


async def use(runtime: Runtime) -> None:
    async def down() -> None:
        raise CalleeError("rag-engine")

    await runtime.call("rag-engine", asyncio.sleep, 0)
    with pytest.raises(SoftCallError):
        await runtime.call("rag-engine", down)


def test_promtool_accepts_the_exported_metrics(promtool: Path, rendered: Callable[[str], Path]) -> None:
    runtime = Runtime.load(rendered("prod").parent / "policies" / "agent-engine")
    asyncio.run(use(runtime))
    registry = CollectorRegistry()
    registry.register(RuntimeCollector(runtime))
    text = generate_latest(registry).decode()
    checked = check(promtool, text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert "voice_call_attempts_total" in text
    assert check(promtool, text.replace("_attempts_total", "_attempts")).returncode != 0
