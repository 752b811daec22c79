from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from voice_policies import FILE_NAME
from voice_reference.flows import main
from voice_reference.processes import Process, bundles_of, running
from voice_runtime.tracing.collector import Collector

from tests.loopback import NO_TLS
from tests.platforms import platform


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered")
    command = [sys.executable, "-m", "stack.cli", "render", "dev", "-o", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return root / "policies"


def post(process: Process, path: str) -> httpx.Response:
    return httpx.post(f"{process.url}/{path}", timeout=30, trust_env=False, verify=NO_TLS)


def get(process: Process, path: str) -> httpx.Response:
    return httpx.get(f"{process.url}/{path}", timeout=30, trust_env=False, verify=NO_TLS)


def test_all_services_of_the_platform_run_every_operation_from_their_bundle(rendered: Path) -> None:
    names = [path.parent.name for path in rendered.glob(f"*/{FILE_NAME}")]
    assert sorted(names) == sorted(service.name for service in platform("dev").microservices)
    with Collector() as collector, running(bundles_of(rendered, names), collector.endpoint) as started:
        for process in started.processes.values():
            assert get(process, "health").json() == {"status": "alive"}
            ready = get(process, "ready")
            assert ready.status_code == 200, ready.text
            for inbound in process.bundle.inbound:
                answer = post(process, inbound.operation)
                assert answer.status_code == 200, f"{process.bundle.metadata.service}.{inbound.operation}"
                assert answer.json()["operation"] == inbound.operation
            assert f'digest="{process.bundle.metadata.digest}"' in get(process, "metrics").text
        called = {(s.service, s.name) for s in collector.spans}
        assert collector.wait_for(lambda spans: {s.service for s in spans} == set(names), 30), called


def test_the_flows_run_between_processes(rendered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(rendered)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    text = printed.out
    for title in ("Voice dialogue", "Retrieve and re-rank", "Tool call"):
        assert re.search(rf"^{title}: \d\d hops between \d+ services$", text, re.MULTILINE)
    assert text.count("one trace id on all hops") == text.count("every deadline is shorter") == 3
    for hop in ("voice-engine.dialogue", "conversation-service.send", "model-adapter.rerank", "external-tools.invoke"):
        assert hop in text
    story = text[text.index("A soft dependency fails") :]
    sentences = [
        "agent-engine has swapped its policy while running",
        "rag-engine fails",
        "answered without citations, breaker open",
        "rag-engine works again",
        "answered with citations, breaker closed",
    ]
    positions = [story.index(sentence) for sentence in sentences]
    assert positions == sorted(positions)
