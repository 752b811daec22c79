from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from voice_policies import Duration, Rate, RateLimit, Ratio, Timeout, TokenBucket, Tracing
from voice_policies import Health as HealthPolicy
from voice_reference.configuration import Behaviour, ConfigurationFile
from voice_reference.operations import is_on_the_wire
from voice_reference.processes import Platform, Process, running, wait_until
from voice_reference.simulation import latency
from voice_runtime import Runtime
from voice_runtime.tracing.collector import Collector

from tests.bundles import bundle, call, mount, operation
from tests.driver import seeded
from tests.loopback import NO_TLS

BROKEN = Behaviour(error_ratio=Ratio("100%"))


def post(process: Process, path: str) -> httpx.Response:
    headers = {"baggage": "tenant.id=acme,card=4111"}
    return httpx.post(f"{process.url}/{path}", headers=headers, timeout=180, trust_env=False, verify=NO_TLS)


def get(process: Process, path: str) -> httpx.Response:
    return httpx.get(f"{process.url}/{path}", timeout=180, trust_env=False, verify=NO_TLS)


@pytest.fixture
def pair() -> Any:
    """rag-engine, and agent-engine with a soft call to rag-engine and hard calls to a store and a speech provider."""
    # A busy machine answers within these timeouts.
    patient = {"timeout": Timeout(attempt=Duration("1m"), overall=Duration("2m"))}
    store = call("postgresql.write", protocol="postgresql", **patient)
    soft = call("rag-engine.context", necessity="soft", fallback="no citations", **patient)
    once = RateLimit(limit=TokenBucket(rate=Rate("1/d"), burst=1), key="tenant")
    limited = operation("limited", deadline=Duration("3m"), rate_limits=(once,))
    speech = call("speech-providers.synthesize", protocol="https", first_message=Duration("1m"), **patient)
    names = ("rag-engine.context", "postgresql.write", "speech-providers.synthesize")
    run = operation("run", deadline=Duration("3m"), calls=names)
    policies: dict[str, Any] = {
        "health": HealthPolicy(drain_duration=Duration("3s")),
        "tracing": Tracing(
            endpoint="http://replaced:4317", sample_ratio=Ratio("100%"), shutdown_timeout=Duration("20s")
        ),
    }
    agent = bundle(store, soft, speech, inbound=(run, limited), **policies)
    rag = bundle(inbound=(operation("context", deadline=Duration("3m")),), service="rag-engine", **policies)
    with Collector() as collector, running({"agent-engine": agent, "rag-engine": rag}, collector.endpoint) as platform:
        yield platform, collector


def test_a_soft_failure_degrades_the_answer_and_other_failures_get_an_error_status(
    pair: tuple[Platform, Collector],
) -> None:
    platform, collector = pair
    agent = platform.processes["agent-engine"]
    assert post(agent, "run").json()["fallbacks"] == []
    metrics = get(agent, "metrics").text
    assert 'voice_call_first_messages_total{name="speech-providers.synthesize"} 1.0' in metrics
    assert 'voice_call_late_first_messages_total{name="speech-providers.synthesize"} 0.0' in metrics
    platform.behave("rag-engine", context=BROKEN)
    assert post(agent, "run").json()["fallbacks"] == ["no citations"]
    platform.behave("agent-engine", **{"postgresql.write": BROKEN})
    failed = post(agent, "run")
    assert (failed.status_code, failed.json()) == (500, {"error": "callee: the callee failed: unavailable"})
    assert post(agent, "nothing").status_code == 404
    assert get(agent, "run").status_code == 405
    assert [post(agent, "limited").status_code for _ in range(2)] == [200, 429]
    assert collector.wait_for(lambda spans: any(s.failed and s.name == "POST run" for s in spans), 180)
    for span in (each for each in collector.spans if each.name != "GET run"):
        assert span.attributes["tenant.id"] == "acme"
        assert "card" not in span.attributes


async def test_sigterm_under_load_finishes_every_accepted_request(pair: tuple[Platform, Collector]) -> None:
    platform, collector = pair
    agent = platform.processes["agent-engine"]
    platform.behave("agent-engine", run=Behaviour(median=Duration("200ms"), p95=Duration("400ms")))
    answers: list[int] = []

    async def load(client: httpx.AsyncClient) -> None:
        while agent.process.poll() is None:
            try:
                answers.append((await client.post(f"{agent.url}/run")).status_code)
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def watch(client: httpx.AsyncClient) -> None:
        while (await client.get(f"{agent.url}/ready")).status_code == 200:  # noqa: ASYNC110  # the condition depends on another process
            await asyncio.sleep(0.02)
        assert (await client.get(f"{agent.url}/ready")).json()["status"] == "draining"
        assert (await client.get(f"{agent.url}/health")).status_code == 200
        answers.append((await client.post(f"{agent.url}/run")).status_code)

    async with httpx.AsyncClient(timeout=180, trust_env=False, verify=NO_TLS) as client, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(load(client))
        await asyncio.sleep(0.3)
        agent.process.send_signal(signal.SIGTERM)
        group.create_task(watch(client))
    assert await asyncio.to_thread(agent.process.wait, 180) == 0
    assert set(answers) == {200}
    assert len(answers) > 8
    served = sum(span.name == "POST run" for span in collector.spans)
    assert served == len(answers)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    return str(mount(tmp_path / "policy", bundle(call("rag-engine.context"), inbound=(operation("run"),))))


def start(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"VOICE_SETTINGS_PATH": str(tmp_path)} | variables
    command = [sys.executable, "-m", "voice_reference"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)


def test_bad_input_is_named_and_the_service_does_not_start(tmp_path: Path, policy: str) -> None:
    missing = start(tmp_path, VOICE_POLICY_PATH=str(tmp_path))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "policy.json: 1 fault" in missing.stderr
    configuration = tmp_path / "configuration.json"
    configuration.write_text('{"grpc_prot": 1, "behaviour": {"run": {"median": "9ms", "p95": "2ms"}}}')
    faulty = start(tmp_path, VOICE_POLICY_PATH=policy, VOICE_REFERENCE_PATH=str(configuration))
    assert faulty.returncode == 2
    assert "did you mean grpc_port" in faulty.stderr
    assert "p95 2ms is below median 9ms" in faulty.stderr
    assert "Traceback" not in faulty.stderr + missing.stderr


def test_an_empty_configuration_file_is_a_fault(tmp_path: Path, policy: str) -> None:
    configuration = tmp_path / "configuration.json"
    configuration.touch()
    faulty = start(tmp_path, VOICE_POLICY_PATH=policy, VOICE_REFERENCE_PATH=str(configuration))
    assert (faulty.returncode, faulty.stdout) == (2, "")
    assert "configuration.json: 1 fault" in faulty.stderr
    assert "Traceback" not in faulty.stderr


def test_names_in_the_configuration_must_be_in_the_bundle(tmp_path: Path, policy: str) -> None:
    configuration = tmp_path / "configuration.json"
    configuration.write_text(
        '{"addresses": {"rag-enginee": "nonsense"}, "behaviour": {"no.such.call": {"error_ratio": "1%"}}}'
    )
    faulty = start(tmp_path, VOICE_POLICY_PATH=policy, VOICE_REFERENCE_PATH=str(configuration))
    assert faulty.returncode == 2
    assert "configuration.json: 3 faults" in faulty.stderr
    assert "addresses.rag-enginee: is 'nonsense'; expected host:port, such as 127.0.0.1:9000" in faulty.stderr
    assert "addresses.rag-enginee: is not in the bundle; did you mean rag-engine?" in faulty.stderr
    assert "behaviour.no.such.call: is not in the bundle; " in faulty.stderr


@pytest.mark.parametrize("protocol", ["gRPC", "HTTP"])
def test_a_port_in_use_is_named_and_the_service_does_not_start(tmp_path: Path, policy: str, protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ports = {"grpc_port": 0, "http_port": 0, f"{protocol.lower()}_port": port}
        configuration = tmp_path / "configuration.json"
        configuration.write_text(json.dumps({"host": "127.0.0.1"} | ports))
        taken = start(tmp_path, VOICE_POLICY_PATH=policy, VOICE_REFERENCE_PATH=str(configuration))
    assert taken.returncode == 2
    (complaint,) = (line for line in taken.stderr.splitlines() if line.startswith(protocol))
    assert complaint.startswith(f"{protocol} port {port} is not available: ")
    assert "Traceback" not in taken.stderr


def test_the_previous_configuration_stays_after_a_faulty_change(pair: tuple[Platform, Collector]) -> None:
    agent = pair[0].processes["agent-engine"]
    (agent.directory / "configuration.json").write_text("{")
    assert post(agent, "run").status_code == 200
    wait_until(lambda: "stays in force" in agent.log.read_text(), 180, "the log names the fault")


def test_a_configuration_that_cannot_be_read_is_logged_once(
    tmp_path: Path, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "configuration.json"
    path.write_text('{"host": "127.0.0.1"}')
    file = ConfigurationFile(path, Runtime.load(policy))
    path.rename(tmp_path / "moved.json")
    assert [file.current().host for _ in range(3)] == ["127.0.0.1"] * 3
    assert caplog.text.count("configuration.json: 1 fault") == caplog.text.count("No such file or directory") == 1
    path.write_text('{"host": "127.0.0.2"}')
    assert file.current().host == "127.0.0.2"
    path.unlink()
    assert file.current().host == "127.0.0.2"
    assert caplog.text.count("No such file or directory") == 2


def test_latency_is_drawn_from_its_median_and_p95() -> None:
    behaviour, random = Behaviour(median=Duration("10ms"), p95=Duration("50ms")), seeded()
    drawn = sorted(latency(behaviour, random) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.010, rel=0.05)
    assert drawn[19_000] == pytest.approx(0.050, rel=0.05)
    assert latency(Behaviour(median=Duration("0s")), random) == 0


@pytest.mark.parametrize(
    ("reached", "is_inside"), [({}, True), ({"via": "egress:8443"}, False), ({"tls": True}, False)]
)
def test_only_a_grpc_callee_inside_the_platform_gets_real_calls(reached: dict[str, Any], *, is_inside: bool) -> None:
    address = {"host": "milvus.example", "port": 19530, **reached}
    assert is_on_the_wire(call("vector-store.search", addresses=(address,))) is is_inside
