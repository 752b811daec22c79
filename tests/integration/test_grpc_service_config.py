"""grpc-go with the rendered service config of real Go services."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from voice_policies import OutboundCall, grpc_method, grpc_service

from components.grpc_service_config import GRPC_FILE_NAME
from stack.output.render import render
from tests.platforms import platform

pytestmark = pytest.mark.integration

CALLS = [
    (service.name, call)
    for service in platform("prod").microservices
    for call in service.bundle.outbound
    if call.enforced_by.timeout == "grpc"
]
FAILING_CALLS = 20
"""Number of calls with which the Go program `serviceconfig` uses up a retry budget."""
SLOW = 2.0
"""Longest delay in seconds that a busy machine may cause."""
Observations = dict[str, Any]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "prod"
    render(platform("prod"), out)
    return out / "policies"


@pytest.fixture(scope="module")
def observed(serviceconfig: Path, policies: Path) -> dict[str, Observations]:
    """The attempts that the servers saw, by service and method."""
    running = {
        service: subprocess.Popen([serviceconfig, policies / service / GRPC_FILE_NAME], stdout=subprocess.PIPE)
        for service in {service for service, _ in CALLS}
    }
    found: dict[str, Observations] = {}
    for service, process in running.items():
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        found |= {f"{service} {method}": seen for method, seen in json.loads(output).items()}
    return found


@pytest.fixture(params=CALLS, ids=lambda each: f"{each[0]} to {each[1].name}")
def call(request: pytest.FixtureRequest) -> OutboundCall:
    found: OutboundCall = request.param[1]
    return found


@pytest.fixture
def seen(request: pytest.FixtureRequest, call: OutboundCall, observed: dict[str, Observations]) -> Observations:
    service: str = request.node.callspec.params["call"][0]
    return observed[f"{service} /{grpc_service(call.callee)}/{grpc_method(call.operation)}"]


def arrivals(observation: Observations) -> int:
    return sum(len(attempts) for attempts in observation["attempts"])


def retries(call: OutboundCall) -> int:
    return call.max_attempts - 1 if call.enforced_by.retry == "grpc" else 0


def test_the_real_services_have_calls_with_and_without_a_retry() -> None:
    assert {retries(call) for _, call in CALLS} == {0, 1}


def test_an_unavailable_callee_gets_the_declared_attempts(call: OutboundCall, seen: Observations) -> None:
    (attempts,) = seen["unavailable"]["attempts"]
    assert [attempt["previous"] for attempt in attempts] == ["", *map(str, range(1, retries(call) + 1))]


def test_a_callee_that_recovers_answers_the_retry(call: OutboundCall, seen: Observations) -> None:
    assert arrivals(seen["unavailable once"]) == 1 + min(1, retries(call))
    if retries(call):
        assert seen["unavailable once"]["statuses"] == ["OK"]


def test_a_permanent_error_is_never_retried(seen: Observations) -> None:
    assert arrivals(seen["invalid argument"]) == 1


def test_a_call_to_a_callee_that_hangs_ends_after_the_declared_time(call: OutboundCall, seen: Observations) -> None:
    overall, hung = call.timeout.overall.seconds, seen["hang"]
    (remaining,) = [attempt["seconds_left"] for attempts in hung["attempts"] for attempt in attempts]
    assert overall - SLOW < remaining <= overall + 0.01
    assert hung["statuses"] == ["DeadlineExceeded"]
    assert hung["seconds"] > overall * 0.99


def test_retries_share_the_deadline_of_the_whole_call(call: OutboundCall, seen: Observations) -> None:
    (attempts,) = seen["unavailable"]["attempts"]
    remaining = [attempt["seconds_left"] for attempt in attempts]
    assert remaining == sorted(remaining, reverse=True)
    assert max(remaining) <= call.timeout.overall.seconds + 0.01


def test_the_retries_of_failed_calls_do_not_exceed_the_reserve_of_the_budget(
    call: OutboundCall, seen: Observations
) -> None:
    repeated = arrivals(seen["budget spent"]) - FAILING_CALLS
    if call.retry:
        assert 0 < repeated <= call.retry.budget.reserve
    else:
        assert repeated == 0


def test_successful_calls_refill_the_retry_budget(call: OutboundCall, seen: Observations) -> None:
    assert arrivals(seen["budget refilled"]) == 1 + retries(call)


def test_calls_are_spread_over_the_callees_pods(seen: Observations) -> None:
    assert [len(attempts) for attempts in seen["two servers"]["attempts"]] == [5, 5]


def test_a_pod_that_reports_not_serving_gets_no_call(seen: Observations) -> None:
    assert [len(attempts) for attempts in seen["one not serving"]["attempts"]] == [0, 10]
