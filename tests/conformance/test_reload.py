from __future__ import annotations

import asyncio
import json
import os
import resource
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from voice_policies import (
    FILE_NAME,
    Bulkhead,
    CircuitBreaker,
    Degradation,
    Duration,
    InvalidInputError,
    PolicyBundle,
    Rate,
    RateLimit,
    Ratio,
    Retry,
    RetryBudget,
    Timeout,
    TokenBucket,
)
from voice_runtime import (
    AttemptTimeoutError,
    CircuitOpenError,
    RateLimitedError,
    Runtime,
    UnknownCallError,
    bundle_source,
)
from voice_runtime.assembly import Assembly
from voice_runtime.outcome import PERMANENT
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount, operation
from tests.driver import Recorder, settle


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def timeouts(attempt: str) -> PolicyBundle:
    return bundle(call(timeout=Timeout(attempt=Duration(attempt), overall=Duration("1h"))))


def test_p1_a_swapped_symbolic_link_is_noticed(tmp_path: Path) -> None:
    first, second = timeouts("1s"), timeouts("2s")
    mount(tmp_path, first)
    with Runtime.load(tmp_path, poll_interval=0.02) as runtime:
        assert runtime.digest == first.metadata.digest
        mount(tmp_path, second)
        assert eventually(lambda: runtime.digest == second.metadata.digest)
        assert runtime.reloads == {"applied": 1, "refused": 0}
    assert not [thread for thread in threading.enumerate() if thread.name == "voice-runtime-watch"]


def test_p1_the_file_is_read_every_second(tmp_path: Path) -> None:
    mount(tmp_path, timeouts("1s"))
    with Runtime.load(tmp_path) as runtime:
        mount(tmp_path, second := timeouts("2s"))
        assert eventually(lambda: runtime.digest == second.metadata.digest)
    assert bundle_source.POLL_INTERVAL == 1.0


def test_p1_a_process_with_more_than_1024_file_descriptors_loads_a_new_bundle(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as connections:
        connections.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1_100):
            connections.enter_context(Path(os.devnull).open())
        test_p1_a_swapped_symbolic_link_is_noticed(tmp_path)


def test_p2_an_unexpected_error_does_not_end_the_watcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = timeouts("1s"), timeouts("2s")
    mount(tmp_path, first)
    with Runtime.load(tmp_path, poll_interval=0.02) as runtime:
        with monkeypatch.context() as broken:
            broken.setattr(Assembly, "assemble", lambda *_: 1 // 0)
            mount(tmp_path, timeouts("3s"))
            assert eventually(lambda: "ZeroDivisionError" in caplog.text)
        assert runtime.digest == first.metadata.digest
        mount(tmp_path, second)
        assert eventually(lambda: runtime.digest == second.metadata.digest)
        assert runtime.reloads == {"applied": 1, "refused": 1}


def test_p1_changed_content_reloads_the_bundle_and_a_changed_modification_time_does_not(tmp_path: Path) -> None:
    first, second = timeouts("1s"), timeouts("2s")
    mount(tmp_path, first)
    runtime = Runtime.load(tmp_path)
    stamp = (tmp_path / FILE_NAME).stat().st_mtime_ns
    mount(tmp_path, second)
    os.utime(tmp_path / FILE_NAME, ns=(stamp, stamp))
    assert runtime.reload()
    assert runtime.digest == second.metadata.digest
    os.utime(tmp_path / FILE_NAME)
    assert not runtime.reload()
    assert runtime.reloads["applied"] == 1


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"apiVersion": "voiceassistant.dev/v2", "kind": "PolicyBundle"}', None, "half"],
    ids=["empty", "not JSON", "another version", "missing", "cut off"],
)
def test_p2_a_faulty_file_is_refused_and_the_last_valid_bundle_stays(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    good = timeouts("1s")
    mount(tmp_path, good)
    runtime = Runtime.load(tmp_path, listeners=[recorder := Recorder()])
    if text is None:
        (tmp_path / FILE_NAME).unlink()
    else:
        mount(tmp_path, json.dumps(good.to_document())[:200] if text == "half" else text)
    for _ in range(3):  # the fault is logged once, however often the file is read
        assert not runtime.reload()
    assert runtime.digest == good.metadata.digest
    assert runtime.reloads == {"applied": 0, "refused": 1}
    assert caplog.text.count("refused") == 1
    assert len(recorder.of("refused")) == 1
    mount(tmp_path, fresh := timeouts("3s"))
    assert runtime.reload()
    assert runtime.digest == fresh.metadata.digest


def test_p2_another_services_bundle_is_refused(tmp_path: Path) -> None:
    mount(tmp_path, bundle(call()))
    runtime = Runtime.load(tmp_path)
    mount(tmp_path, bundle(call(), service="rag-engine"))
    assert not runtime.reload()
    assert runtime.bundle.metadata.service == "agent-engine"


def test_p2_a_missing_file_at_startup_is_refused_unless_there_are_defaults(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"policy\.json: 1 fault\n.*is missing"):
        Runtime.load(tmp_path)
    runtime = Runtime.load(tmp_path, defaults=timeouts("1s"))
    assert runtime.bundle == timeouts("1s")
    assert runtime.mounted_digest == ""
    assert not runtime.reload()
    assert runtime.reloads == {"applied": 0, "refused": 0}, "the defaults hold until the file appears"
    mount(tmp_path, timeouts("2s"))
    assert runtime.reload()
    assert runtime.bundle == timeouts("2s")


STATEFUL: dict[str, Any] = {
    "circuit_breaker": CircuitBreaker(),
    "bulkhead": Bulkhead(max_concurrent=2),
    "retry": Retry(max_retries=1, budget=RetryBudget(ratio=Ratio("0%"), reserve=1)),
}


def limited(rate: str, burst: int) -> tuple[Any, ...]:
    return (operation("run", rate_limits=(RateLimit(limit=TokenBucket(rate=Rate(rate), burst=burst)),)),)


async def test_p3_unchanged_policies_keep_their_state(clock: FakeClock, tmp_path: Path) -> None:
    mount(tmp_path, bundle(call(**STATEFUL), inbound=limited("1/m", 2)))
    runtime = Runtime.load(tmp_path, clock=clock)
    before = runtime.outbound("rag-engine")
    assert before.breaker is not None
    assert before.retry is not None
    for _ in range(5):
        before.breaker.failure(before.breaker.state, PERMANENT)
    assert before.retry.budget.spend()
    async with runtime.request("run"), runtime.request("run"):
        pass
    mount(tmp_path, bundle(call(**STATEFUL), call("retrieval-service"), inbound=limited("1/m", 2)))
    assert runtime.reload()
    after = runtime.outbound("rag-engine")
    assert after is not before
    with pytest.raises(CircuitOpenError):
        await runtime.call("rag-engine", asyncio.sleep, 0)
    assert after.statistics is before.statistics
    assert after.retry is not None
    assert not after.retry.budget.spend()
    with pytest.raises(RateLimitedError):
        async with runtime.request("run"):
            pass


async def test_p3_changed_policies_continue_from_their_state(clock: FakeClock, tmp_path: Path) -> None:
    mount(tmp_path, bundle(call(**STATEFUL), inbound=limited("1/m", 10)))
    runtime = Runtime.load(tmp_path, clock=clock)
    breaker = runtime.outbound("rag-engine").breaker
    assert breaker is not None
    for _ in range(4):
        breaker.failure(breaker.state, PERMANENT)
    for _ in range(8):
        async with runtime.request("run"):
            pass
    changed = STATEFUL | {"circuit_breaker": CircuitBreaker(consecutive_failures=6)}
    mount(tmp_path, bundle(call(**changed), inbound=limited("1/m", 9)))
    assert runtime.reload()
    assert runtime.outbound("rag-engine").breaker is breaker
    breaker.failure(breaker.state, PERMANENT)
    assert breaker.current() == "closed"
    breaker.failure(breaker.state, PERMANENT)
    assert breaker.current() == "open"
    async with runtime.request("run"):
        pass
    with pytest.raises(RateLimitedError):
        async with runtime.request("run"):
            pass


async def test_p3_calls_in_flight_end_under_the_bundle_they_began_under(clock: FakeClock, tmp_path: Path) -> None:
    mount(tmp_path, timeouts("10s"))
    runtime = Runtime.load(tmp_path, clock=clock)
    begun = clock.monotonic()
    running = asyncio.create_task(_await(runtime.call("rag-engine", asyncio.sleep, 60)))
    await settle()
    mount(tmp_path, timeouts("1s"))
    assert runtime.reload()
    with pytest.raises(AttemptTimeoutError):
        await runtime.call("rag-engine", asyncio.sleep, 60)
    assert clock.monotonic() - begun == pytest.approx(1)
    with pytest.raises(AttemptTimeoutError):
        await running
    assert clock.monotonic() - begun == pytest.approx(10)


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_p3_a_reload_drops_removed_policies_and_calls(tmp_path: Path) -> None:
    mount(tmp_path, bundle(call(**STATEFUL), degradation=Degradation()))
    runtime = Runtime.load(tmp_path)
    mount(tmp_path, bundle(call("retrieval-service")))
    assert runtime.reload()
    assert runtime.degradation is None
    with pytest.raises(UnknownCallError, match=r"'rag-engine' matches no outbound call.*retrieval-service"):
        runtime.outbound("rag-engine")


def edited(path: tuple[Any, ...], value: object) -> str:
    document = bundle(call(**STATEFUL), inbound=limited("1/s", 1)).to_document()
    place: Any = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return json.dumps(document)


FAULTS = [
    (("apiVersion",), "voiceassistant.dev/v2", "expected voiceassistant.dev/v1"),
    (("outbound", 0, "timeout", "attempt"), 5, "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), "5", "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), "010", "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), "-1s", "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), "0s", "must be above 0s"),
    (("outbound", 0, "timeout", "attempt"), "1:30", "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), True, "a duration with its unit"),
    (("outbound", 0, "timeout", "attempt"), "NaN", "a duration with its unit"),
    (("outbound", 0, "retry", "multiplier"), float("nan"), "is not JSON"),
    (("outbound", 0, "retry", "max_retries"), True, "expected a whole number"),
    (("outbound", 0, "retry", "max_retries"), "3", "expected a whole number"),
    (("outbound", 0, "retry", "max_retries"), -1, "greater than or equal to 0"),
    (("outbound", 0, "retry", "budget", "ratio"), "101%", "a ratio from 0% to 100%"),
    (("outbound", 0, "retry", "budget", "ratio"), 0.5, "a ratio from 0% to 100%"),
    (("outbound", 0, "circuit_breaker", "failure_rate"), "50%", "did you mean failure_ratio?"),
    (("outbound", 0, "circuit_breaker", "count_resource_exhausted"), "on", "expected true or false"),
    (("outbound", 0, "bulkhead", "max_concurrent"), 0, "greater than or equal to 1"),
    (("inbound", 0, "rate_limits", 0, "limit", "rate"), "0/s", "a rate of whole events"),
    (("inbound", 0, "rate_limits", 0, "limit", "burst"), 1.5, "expected a whole number"),
    (("metadata", "digest"), "sha256:" + "0" * 64, "does not match the content"),
]


@pytest.mark.parametrize(("path", "value", "accepted"), FAULTS, ids=[f"{f[0][-1]}={f[1]}" for f in FAULTS])
def test_p4_the_error_for_a_bad_value_names_the_accepted_values(
    tmp_path: Path, path: tuple[Any, ...], value: object, accepted: str
) -> None:
    mount(tmp_path, edited(path, value))
    with pytest.raises(InvalidInputError) as refused:
        Runtime.load(tmp_path)
    assert str(refused.value).startswith(str(tmp_path / FILE_NAME))
    assert accepted in str(refused.value)


def test_p4_one_error_names_every_fault(tmp_path: Path) -> None:
    document = bundle(call(**STATEFUL)).to_document()
    document["outbound"][0]["timeout"]["attempt"] = 5
    document["outbound"][0]["retry"]["max_retries"] = -1
    document["outbound"][0]["surprise"] = 1
    mount(tmp_path, json.dumps(document))
    with pytest.raises(InvalidInputError) as refused:
        Runtime.load(tmp_path)
    assert {fault.path for fault in refused.value.faults} == {
        "outbound[0].timeout.attempt",
        "outbound[0].retry.max_retries",
        "outbound[0].surprise",
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "apiVersion: voiceassistant.dev/v1\nkind: PolicyBundle\n", "\x00"],
    ids=["empty", "a list", "null", "YAML", "NUL"],
)
def test_p4_only_json_objects_are_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError):
        Runtime.load(mount(tmp_path, text))
