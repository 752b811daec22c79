"""A small Go service with the `contract.go` of docs/go.md follows the contract of services."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from voice_policies import FILE_NAME, PolicyBundle, grpc_method, grpc_service
from voice_runtime.grpc.status import failure_of

from stack.cli import main
from tests.loopback import wait_until
from tests.platforms import platform

pytestmark = pytest.mark.integration

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@dataclass
class GoService:
    process: subprocess.Popen[bytes]
    bundle: PolicyBundle
    log: Path

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    @property
    def url(self) -> str:
        return f"http://{self.lines[0]['http']}"

    def metrics(self) -> list[str]:
        return httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()


@contextmanager
def running(name: str, contract: Path, tmp_path: Path) -> Iterator[GoService]:
    (service,) = (each for each in platform("prod").microservices if each.name == name)
    (tmp_path / FILE_NAME).write_text(json.dumps(service.bundle.to_document()), encoding="utf-8")
    log = tmp_path / "log"
    with log.open("wb") as output, subprocess.Popen([contract, tmp_path], stdout=output) as process:
        started = GoService(process, service.bundle, log)
        try:
            wait_until(lambda: started.url, ValueError, IndexError, process=process, log=log)
            yield started
        finally:
            process.kill()


@pytest.fixture
def identity(contract: Path, tmp_path: Path) -> Iterator[GoService]:
    with running("identity-service", contract, tmp_path) as service:
        yield service


@pytest.fixture
def conversation(contract: Path, tmp_path: Path) -> Iterator[GoService]:
    """conversation-service, whose call to ai-orchestrator is soft."""
    with running("conversation-service", contract, tmp_path) as service:
        yield service


def test_the_go_service_follows_the_contract(conversation: GoService, capsys: pytest.CaptureFixture[str]) -> None:
    over_grpc, process = conversation.lines[0]["grpc"], str(conversation.process.pid)
    of_files = ("--bundle", str(conversation.log.parent / FILE_NAME), "--logs", str(conversation.log))
    assert main(["conform", conversation.url, *of_files, "--grpc", over_grpc, "--drain", process]) == 0, (
        capsys.readouterr().out
    )
    assert conversation.process.wait(timeout=60) == 0


def test_the_go_service_counts_a_soft_call_that_falls_back(conversation: GoService) -> None:
    fallbacks = 'voice_call_fallbacks_total{name="ai-orchestrator.answer"} %d'
    assert fallbacks % 0 in conversation.metrics()
    method = f"/{grpc_service('conversation-service')}/{grpc_method('send')}"
    with grpc.insecure_channel(conversation.lines[0]["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        call(b"", timeout=60)
    assert fallbacks % 1 in conversation.metrics()


def test_the_go_service_counts_a_request_and_logs_its_trace(identity: GoService) -> None:
    (verify,) = (each for each in identity.bundle.inbound if each.operation == "verify")
    method = f"/{grpc_service('identity-service')}/{grpc_method(verify.operation)}"
    with grpc.insecure_channel(identity.lines[0]["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel:
        headers = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        assert call(b"", metadata=headers, timeout=60) == b""
    requests = 'voice_operation_requests_total{kind="successful",operation="%s"}'
    assert {requests % "verify" + " 1", requests % "login" + " 0"} <= set(identity.metrics())
    last = identity.lines[-1]
    assert (last["message"], last["trace_id"], last["span_id"]) == ("answered", TRACE, SPAN)


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code.name != "CANCELLED"], ids=lambda code: code.name
)
def test_go_and_python_services_count_the_same_statuses_as_failed(identity: GoService, code: grpc.StatusCode) -> None:
    method = f"/{grpc_service('identity-service')}/{grpc_method('verify')}"
    with grpc.insecure_channel(identity.lines[0]["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        with suppress(grpc.RpcError):
            call(b"", metadata=(("answer-with-status", str(code.value[0])),), timeout=60)
    kind = "failed" if failure_of(code) else "successful"
    assert f'voice_operation_requests_total{{kind="{kind}",operation="verify"}} 1' in identity.metrics()


def test_the_go_service_exports_the_mounted_bundle_and_the_bundle_in_force(identity: GoService) -> None:
    other = identity.bundle.model_copy(update={"outbound": ()}).sealed()
    (identity.log.parent / FILE_NAME).write_text(json.dumps(other.to_document()), encoding="utf-8")
    assert f'voice_policy_mounted_info{{digest="{other.metadata.digest}"}} 1' in identity.metrics()
    in_force = next(line for line in identity.metrics() if line.startswith("voice_policy_info{"))
    assert f'digest="{identity.bundle.metadata.digest}"' in in_force
