from __future__ import annotations

import builtins
import re
from pathlib import Path

import voice_runtime
from voice_policies import Address, CircuitBreaker, Degradation, DegradedFeature, Duration, Health

from tests.bundles import bundle, call, mount, operation
from tests.examples import DOCUMENTS, run_examples

PROVIDERS = tuple(Address(host=host, port=443) for host in ("api.example.com", "api.example.org"))


def test_the_examples_in_the_document_run(tmp_path: Path) -> None:
    citations = DegradedFeature(name="citations", off_at="partial", fallback="answer without citations")
    callee = bundle(
        service="rag-engine",
        inbound=(operation("context"),),
        degradation=Degradation(features=(citations,)),
        health=Health(drain_duration=Duration("0s")),
    )
    caller = bundle(
        call("rag-engine.context", circuit_breaker=CircuitBreaker()),
        call("elasticsearch.search", protocol="http"),
        call(
            "translation-providers.translate", protocol="https", addresses=PROVIDERS, circuit_breaker=CircuitBreaker()
        ),
    )
    services = {"agent-engine": caller, "rag-engine": callee}
    mounted = {f"/etc/voice/{name}": mount(tmp_path / name, content) for name, content in services.items()}
    assert run_examples("grpc.md", mounted) == 7


def test_the_errors_in_the_document_exist() -> None:
    for name in re.findall(r"`(\w+Error)`", (DOCUMENTS / "grpc.md").read_text()):
        assert hasattr(voice_runtime, name) or hasattr(builtins, name), name
