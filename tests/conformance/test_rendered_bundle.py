from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from voice_policies import FILE_NAME, Duration, OutboundCall, PolicyBundle
from voice_runtime import Caller, CircuitOpenError, Runtime, SoftCallError
from voice_runtime.outcome import PERMANENT
from voice_runtime.testing import FakeClock

from tests.platforms import ENVIRONMENTS, platform


def rendered_bundle(service: str, environment: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "stack.cli", "render", environment, "-o", str(directory)]
    rendered = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert rendered.returncode == 0, f"{' '.join(command)} failed:\n{rendered.stderr}"
    mounted = directory / "policies" / service
    assert (mounted / FILE_NAME).is_file(), f"no {FILE_NAME} was rendered for {service} in {mounted}"
    return mounted


@pytest.fixture(scope="module")
def agent_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendered_bundle("agent-engine", "prod", tmp_path_factory.mktemp("rendered"))


def enforced_here(bundle: PolicyBundle) -> list[OutboundCall]:
    return [call for call in bundle.outbound if call.enforced_by.timeout == "runtime"]


def decided(error: BaseException) -> BaseException | None:
    """The error that a policy raised. A soft call without a fallback has it as the cause of `SoftCallError`."""
    return error.__cause__ if isinstance(error, SoftCallError) else error


def test_only_health_checks_of_grpc_callees_limit_the_latency(agent_engine: Path) -> None:
    checks = Runtime.load(agent_engine).bundle.health.checks
    assert {check.kind for check in checks if check.max_latency is not None} == {"grpc"}


def test_the_health_check_of_a_grpc_callee_limits_the_latency_to_the_callees_objective(agent_engine: Path) -> None:
    checks = {check.name: check for check in Runtime.load(agent_engine).bundle.health.checks}
    assert checks["model-adapter"].max_latency == Duration("900ms")


def test_the_bundle_of_agent_engine_has_the_calls_to_its_callees(agent_engine: Path) -> None:
    bundle = Runtime.load(agent_engine).bundle
    assert {"model-adapter", "rag-engine", "retrieval-service"} <= {call.callee for call in bundle.outbound}
    assert bundle.metadata.service == "agent-engine"
    assert "run" in {operation.operation for operation in bundle.inbound}


async def test_every_call_returns_an_answer_and_times_out_if_its_callee_hangs(
    agent_engine: Path, clock: FakeClock
) -> None:
    runtime = Runtime.load(agent_engine, clock=clock)
    calls = enforced_here(runtime.bundle)
    assert calls
    for call in calls:
        assert await runtime.call(call.name, asyncio.sleep, 0, "answer") == "answer"
        begun = clock.monotonic()
        with pytest.raises(Exception, match=r"timed out|gave up|deadline|soft call") as limited:
            await runtime.call(call.name, asyncio.sleep, 3600)
        assert re.search(r"timed out|gave up|deadline", str(decided(limited.value)))
        assert clock.monotonic() - begun <= call.timeout.overall.seconds + 0.001
        assert runtime.outbound(call.name).statistics.timeouts == call.max_attempts


async def test_every_breaker_opens_after_failures_and_refuses_calls(agent_engine: Path, clock: FakeClock) -> None:
    runtime = Runtime.load(agent_engine, clock=clock)
    guarded = [call for call in enforced_here(runtime.bundle) if call.enforced_by.circuit_breaker == "runtime"]
    assert guarded
    for call in guarded:
        breaker = runtime.outbound(call.name).breaker
        assert breaker is not None
        for _ in range(10_000):
            if breaker.current() == "open":
                break
            breaker.failure(breaker.state, PERMANENT)
        with pytest.raises((CircuitOpenError, SoftCallError)) as refused:
            await runtime.call(call.name, asyncio.sleep, 0)
        assert isinstance(decided(refused.value), CircuitOpenError)


async def test_a_request_of_agent_engine_ends_at_the_deadline_of_its_operation(
    agent_engine: Path, clock: FakeClock
) -> None:
    runtime = Runtime.load(agent_engine, clock=clock)
    operation = next(found for found in runtime.bundle.inbound if found.operation == "run")
    begun = clock.monotonic()
    with pytest.raises(TimeoutError):
        async with runtime.request("run", Caller(tenant="acme", user="ann")):
            await asyncio.sleep(3600)
    assert clock.monotonic() - begun == pytest.approx(operation.deadline.seconds)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_bundle_is_read_back_unchanged(environment: str) -> None:
    for service in platform(environment).microservices:
        text = json.dumps(service.bundle.to_document())
        assert PolicyBundle.from_json(text, "policy.json") == service.bundle
