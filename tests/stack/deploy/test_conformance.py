from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from voice_policies import Duration, InvalidInputError, PolicyBundle
from voice_policies import Health as HealthPolicy
from voice_reference.processes import Process, running
from voice_runtime.metrics import METRICS as EXPORTED

from stack.cli import main
from stack.deploy import conformance
from stack.deploy.conformance import CALL, FALLBACKS, FIELDS, KINDS, METRICS
from tests.bundles import bundle, call, operation

DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def reference() -> Iterator[tuple[Process, PolicyBundle]]:
    policy = bundle(
        call("ai-orchestrator.answer", necessity="soft", fallback="no answer"),
        inbound=(operation("context"), operation("answer")),
        service="rag-engine",
        health=HealthPolicy(drain_duration=Duration("3s")),
    )
    with running({"rag-engine": policy}, "http://127.0.0.1:1") as platform:
        yield platform.processes["rag-engine"], policy


def conform(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str], str]:
    """Exit code, missing parts and error of the command."""
    code = main(["conform", *arguments])
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err


def test_the_reference_service_follows_the_contract(
    reference: tuple[Process, PolicyBundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, policy = reference
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy.to_document()), encoding="utf-8")
    over_grpc, logs = f"127.0.0.1:{service.grpc_port}", str(service.log)
    of_files = ("--bundle", str(file), "--logs", logs)
    arguments = (service.url, *of_files, "--grpc", over_grpc, "--drain", str(service.process.pid))
    assert conform(capsys, *arguments) == (0, [], "")
    assert service.process.wait(timeout=60) == 0


def test_the_contract_asks_for_metrics_that_the_runtime_exports() -> None:
    exported = {metric.name: metric.labels for metric in EXPORTED}
    assert {name: exported[name] for name in METRICS} == METRICS
    assert exported[FALLBACKS] == (CALL,)


def metrics(**changes: str) -> str:
    samples = {
        "voice_policy_info": f'voice_policy_info{{service="a",environment="dev",digest="{DIGEST}"}} 1',
        "voice_policy_mounted_info": f'voice_policy_mounted_info{{digest="{DIGEST}"}} 1.0',
        "voice_operation_requests_total": "\n".join(
            f'voice_operation_requests_total{{operation="run",kind="{kind}"}} 0' for kind in KINDS
        ),
        **{name: f'{name}{{operation="run"}} 0' for name, labels in METRICS.items() if labels == ("operation",)},
    }
    return "# HELP x y\n" + "\n".join({**samples, **changes}.values()) + "\n"


HEALTHY: dict[str, tuple[int, str, str]] = {
    "/health": (200, "application/json", "{}"),
    "/ready": (200, "application/json", '{"status": "degraded"}'),
    "/metrics": (200, "text/plain; version=1.0.0; charset=utf-8", metrics()),
}
"""Path → status, content type and text of a service that follows the contract."""


@contextmanager
def serving(answers: dict[str, tuple[int, str, str]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, text = answers.get(self.path, (404, "text/plain", ""))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(text.encode(errors="surrogateescape"))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def of_metrics(**changes: str) -> dict[str, tuple[int, str, str]]:
    return {"/metrics": (200, "text/plain", metrics(**changes))}


REQUESTS, SECONDS = "voice_operation_requests_total", "voice_operation_seconds_total"
LACKING = "has no series with the declared"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, None),
        ({"/ready": (503, "application/json", '{"status": "draining"}')}, None),
        ({"/health": (500, "", "")}, "GET /health: answers 500; expected 200 as long as the process lives"),
        (
            {"/ready": (200, "", '{"status": "unhealthy"}')},
            "GET /ready: answers 200 with the status 'unhealthy'; expected one of healthy, degraded",
        ),
        (
            {"/ready": (503, "", "not ready")},
            "GET /ready: answers 503 with the status None; expected one of unhealthy, draining",
        ),
        ({"/ready": (404, "", "")}, "GET /ready: answers 404; expected 200 if the service can serve, 503 if not"),
        (
            {"/ready": (200, "", "[" * 100_000)},
            "GET /ready: answers 200 with the status None; expected one of healthy, degraded",
        ),
        ({"/no-such-path": (499, "", "")}, None),
        *(
            (
                {"/no-such-path": (status, "", "")},
                f"GET /no-such-path: answers {status}; expected a 4xx status, such as 404",
            )
            for status in (200, 204, 304, 500)
        ),
        (
            {"/metrics": (200, "text/html", "")},
            "GET /metrics: answers 200 as 'text/html'; expected 200 in the text format of Prometheus",
        ),
        (
            of_metrics(comment="# \udcff"),
            (
                "GET /metrics: answers with bytes that are not UTF-8 "
                f"(invalid start byte at byte {len(metrics()) + 2}); expected the text format of Prometheus, in UTF-8"
            ),
        ),
        ({"/ready": (200, "", '{"status": "healthy", "text": "\udcff"}')}, None),
        (
            of_metrics(voice_operation_in_flight_requests=""),
            "metric voice_operation_in_flight_requests: is absent; expected a series with the labels operation",
        ),
        (
            of_metrics(voice_policy_info=f'voice_policy_info{{service="a",digest="{DIGEST}"}} 1'),
            "metric voice_policy_info: lacks environment; expected the labels service, environment, digest",
        ),
        (
            of_metrics(voice_policy_mounted_info='voice_policy_mounted_info{digest="v1"} 1'),
            "metric voice_policy_mounted_info: has the digest 'v1'; expected the digest of the bundle, as sha256:…",
        ),
        (
            of_metrics(voice_operation_requests_total=f'{REQUESTS}{{operation="run",kind="successful"}} 3'),
            (
                f"metric {REQUESTS} of run: lacks failed, cancelled; "
                "expected the kinds successful, failed, cancelled before the first request"
            ),
        ),
        (
            of_metrics(voice_operation_seconds_total='voice_operation_seconds_total{operation="b"} 3'),
            f"metric {SECONDS}: has no series of operation run; expected a series before the first request",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value or ()) or "nothing",
)
def test_each_missing_part_is_named(
    broken: dict[str, tuple[int, str, str]], said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(HEALTHY | broken) as url:
        code, missing, error = conform(capsys, url)
    assert (code, error) == (int(said is not None), "")
    assert said is None or said in missing


@pytest.fixture
def bundle_path(tmp_path: Path) -> str:
    soft = call("rag-engine.context", necessity="soft", fallback="no citations")
    policy = bundle(call("ai-orchestrator.answer"), soft, inbound=(operation(),))
    (tmp_path / "policy.json").write_text(json.dumps(policy.to_document()), encoding="utf-8")
    return str(tmp_path / "policy.json")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (of_metrics(fallbacks=f'{FALLBACKS}{{name="rag-engine.context"}} 0'), []),
        (
            of_metrics(fallbacks=f'{FALLBACKS}{{name="ai-orchestrator.answer"}} 0'),
            [f'metric {FALLBACKS}: {LACKING} name="rag-engine.context"; expected a series before the first request'],
        ),
        (
            of_metrics(
                fallbacks=f'{FALLBACKS}{{name="rag-engine.context"}} 0',
                voice_operation_requests_total="\n".join(
                    f'{REQUESTS}{{operation="other",kind="{kind}"}} 0' for kind in KINDS
                ),
            ),
            [f'metric {REQUESTS}: {LACKING} operation="run"; expected a series before the first request'],
        ),
    ],
    ids=["all series", "soft call without a series", "operation without a series"],
)
def test_each_declared_operation_and_soft_call_without_a_series_is_named(
    broken: dict[str, tuple[int, str, str]], said: list[str], bundle_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(HEALTHY | broken) as url:
        _, missing, error = conform(capsys, url, "--bundle", bundle_path)
    assert [each for each in missing if "declared" in each] == said
    assert error == ""


def line(**changes: object) -> str:
    ids = {"trace_id": "0" * 32, "span_id": "0" * 16}
    return json.dumps({**dict.fromkeys(FIELDS, "x"), **ids, **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (line(), None),
        ("", "log: has no line"),
        ("ready\n", "log line 1: is no JSON object"),
        (f"{line()}\n{line(policy_digest=None)}\n", "log line 2: lacks policy_digest"),
        (line(trace_id="7"), "log line 1: has a malformed trace_id"),
        ("[" * 100_000, "log line 1: is no JSON object"),
    ],
    ids=["complete line", "no line", "no JSON", "missing field", "malformed id", "deep nesting"],
)
def test_each_field_that_a_log_line_lacks_is_named(
    text: str, said: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(text, encoding="utf-8")
    with serving(HEALTHY) as url:
        code, missing, _ = conform(capsys, url, "--logs", str(tmp_path / "log"))
    assert code == int(said is not None)
    assert [each.startswith(said or "") for each in missing] == [True] * code


def test_a_service_without_grpc_health_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(HEALTHY) as url:
        code, (missing,), _ = conform(capsys, url, "--grpc", url.removeprefix("http://"))
    assert code == 1
    assert missing.startswith("gRPC health: answers UNAVAILABLE; expected SERVING")


def test_a_process_that_ends_immediately_does_not_drain() -> None:
    program = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "s = h.HTTPServer(('127.0.0.1', 0), H)\n"
        "print(s.server_address[1], flush=True)\n"
        "s.serve_forever()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            (missing,) = conformance.missing_on_drain(url, process.pid)
        finally:
            process.kill()  # `Popen.__exit__` would wait forever for a process that did not drain
    assert str(missing).startswith("drain: the process stops answering before /ready fails")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("127.0.0.1:8080",),
            "URL: is '127.0.0.1:8080'; expected the address of a service's HTTP port, such as http://",
        ),
        (("ftp://127.0.0.1",), "URL: is 'ftp://127.0.0.1'; expected"),
        (("http://127.0.0.1:99999",), "URL: is 'http://127.0.0.1:99999'; expected"),
        (("http://operator:hunter2@127.0.0.1:8080",), "URL: has a user; expected the address"),
        (("http://127.0.0.1:8080/ready",), "URL: is 'http://127.0.0.1:8080/ready'; expected"),
        (("http://127.0.0.1:1",), "URL: http://127.0.0.1:1/health gives no answer ("),
    ],
)
def test_an_address_that_is_invalid_or_does_not_answer_is_bad_input(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, missing, error = conform(capsys, *arguments)
    assert (code, missing) == (2, [])
    assert said in error
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("LARGEST", 1000), "the body is longer than 1000 bytes"),
        (("TIMEOUT", 0.5), "the body takes longer than 0.5 s"),
    ],
)
@pytest.mark.parametrize("status", [200, 503])
def test_a_body_without_an_end_is_bad_input(
    status: int,
    limit: tuple[str, float],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stream(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):  # the client closes the connection
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status} Status\r\n\r\n".encode())
            while True:
                connection.sendall(b"data: tick\n\n")

    monkeypatch.setattr(conformance, *limit)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=stream, args=(listener,), daemon=True).start()
        code, missing, error = conform(capsys, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert (code, missing) == (2, [])
    assert f"/health gives no answer ({said})" in error


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_that_is_shorter_than_its_content_length_is_bad_input(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status} Status\r\ncontent-length: 100\r\n\r\n{{}}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        code, missing, error = conform(capsys, f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert (code, missing) == (2, [])
    assert "/health gives no answer (IncompleteRead(2 bytes read, 98 more expected))" in error


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--grpc", "localhost"), "--grpc: is 'localhost'; expected HOST:PORT"),
        (("--grpc", "localhost:0"), "--grpc: is 'localhost:0'; expected HOST:PORT"),
        (("--grpc", "localhost:65536"), "--grpc: is 'localhost:65536'; expected HOST:PORT"),
        (("--bundle", "/no/such/file"), "--bundle: is '/no/such/file': No such file or directory; expected the policy"),
        (("--logs", "/no/such/file"), "--logs: is '/no/such/file': No such file or directory; expected a file"),
        (("--drain", "999999999"), "--drain: is 999999999; expected the id of the service's process"),
    ],
)
def test_a_wrong_option_is_bad_input(option: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(HEALTHY) as url:
        code, _, error = conform(capsys, url, *option)
    assert code == 2
    assert said in error


def test_all_wrong_options_are_refused_together_and_no_process_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("--bundle", "/no/bundle", "--logs", "/no/log", "--grpc", "localhost", "--drain", "0")
    code, missing, error = conform(capsys, "http://127.0.0.1:1", *wrong)
    head, *faults = error.splitlines()
    assert (code, missing, head) == (2, [], "voice: voice conform: 5 faults")
    assert [each.split(":")[0].strip() for each in faults] == ["--bundle", "URL", "--grpc", "--logs", "--drain"]
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            code, _, _ = conform(capsys, "http://127.0.0.1:1", "--drain", str(process.pid))
            assert (code, process.poll()) == (2, None)
        finally:
            process.kill()


@pytest.mark.parametrize("option", ["--bundle", "--logs"])
def test_a_file_without_an_end_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conformance, "LARGEST", 1000)
    with serving(HEALTHY) as url:
        code, _, error = conform(capsys, url, option, "/dev/zero")
    assert code == 2
    assert f"{option}: is '/dev/zero': too large; expected " in error
    assert error.endswith("of at most 1000 bytes\n")


@pytest.mark.parametrize("process", [0, -1, -1234])
def test_a_group_of_processes_is_never_stopped(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*arguments: int) -> None:
        pytest.fail(f"a signal is sent: {arguments}")

    monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(InvalidInputError, match=f"--drain: is {process}; expected the id of the service's process"):
        list(conformance.missing_on_drain("http://127.0.0.1:1", process))
