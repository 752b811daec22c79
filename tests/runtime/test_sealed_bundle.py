from __future__ import annotations

import json
from pathlib import Path

import pytest
from voice_policies import FILE_NAME, Address, CircuitBreaker, InvalidInputError
from voice_runtime import Runtime
from voice_runtime.testing import sealed_bundle

from tests.bundles import bundle, call, mount


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    provider = Address(host="api.example.com", port=443, via="egress-proxy:8443")
    return (
        mount(
            tmp_path / "rendered",
            bundle(
                call(circuit_breaker=CircuitBreaker()),
                call("llm.generate", protocol="https", addresses=(provider, Address(host="b.example.com", port=443))),
            ),
        )
        / FILE_NAME
    )


def test_a_service_loads_an_edited_bundle_with_other_addresses(rendered: Path, tmp_path: Path) -> None:
    document = json.loads(rendered.read_text())
    document["outbound"][0]["timeout"]["attempt"] = "7s"
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(document))
    addresses = {"rag-engine": "127.0.0.1:9001", "llm": "localhost:9002"}
    written = sealed_bundle(edited, tmp_path / "laptop", addresses=addresses)
    assert written == tmp_path / "laptop" / FILE_NAME
    runtime = Runtime.load(written.parent)
    context, generate = runtime.bundle.outbound
    assert context.timeout.attempt.seconds == 7
    assert context.addresses == (Address(host="127.0.0.1", port=9001),)
    assert context.circuit_breaker == CircuitBreaker()
    assert (generate.protocol, generate.addresses) == ("http", (Address(host="localhost", port=9002),))
    assert runtime.digest != json.loads(rendered.read_text())["metadata"]["digest"]


def test_a_running_process_reloads_an_edited_bundle(rendered: Path, tmp_path: Path) -> None:
    runtime = Runtime.load(sealed_bundle(rendered, tmp_path / "laptop").parent)
    assert not runtime.reload()
    sealed_bundle(rendered, tmp_path / "laptop", addresses={"llm": "localhost:9002"})
    assert runtime.reload()


def test_one_error_names_every_fault_of_the_addresses_and_a_faulty_bundle_is_refused(
    rendered: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        sealed_bundle(rendered, tmp_path / "laptop", addresses={"rag-engin": "localhost:1", "llm": "localhost"})
    assert "addresses.rag-engin: is no callee of the bundle; expected one of llm, rag-engine" in str(refused.value)
    assert "addresses.llm: is 'localhost'; expected host:port" in str(refused.value)
    broken = tmp_path / "broken.json"
    document = json.loads(rendered.read_text())
    document["outbound"][0]["timeout"] = {"attempt": "7", "overal": "1m"}
    for text, fault in (
        (json.dumps(document), "outbound"),
        ("{", "is not JSON"),
        ("[]", "is not an object"),
    ):
        broken.write_text(text)
        with pytest.raises(InvalidInputError, match=fault):
            sealed_bundle(broken, tmp_path / "laptop")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        sealed_bundle(tmp_path / "absent.json", tmp_path / "laptop")
    assert not (tmp_path / "laptop").exists()
