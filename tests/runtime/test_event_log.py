from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from voice_policies import (
    Bulkhead,
    CircuitBreaker,
    Degradation,
    Duration,
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
    CalleeError,
    CallRejectedError,
    CircuitOpenError,
    DeadlineExceededError,
    NoThreadError,
    RateLimitedError,
    Runtime,
    UnknownCallError,
    UnknownNameError,
    VoiceRuntimeError,
)
from voice_runtime.event_log import MAX_KEPT, EventLog
from voice_runtime.events import Event
from voice_runtime.log_rate import QUIET
from voice_runtime.metrics import METRICS
from voice_runtime.testing import FakeClock
from voice_runtime.tracing import JsonFormatter

from tests.bundles import bundle, call, mount, operation

BREAKER = CircuitBreaker(consecutive_failures=3, break_duration=Duration("42s"), break_duration_jitter=Ratio("0%"))
CALL = "retrieval-service.search"


def loaded(directory: Path, clock: FakeClock, /, inbound: Any = None, **policies: Any) -> Runtime:
    run = operation("run", **(inbound or {}))
    soft = call("memory.recall", necessity="soft", fallback="nothing is recalled")
    mounted = mount(directory, bundle(call(CALL, **policies), soft, inbound=(run,), degradation=Degradation()))
    return Runtime.load(mounted, clock=clock)


def value(runtime: Runtime, name: str, *labels: str) -> float:
    metric = next(metric for metric in METRICS if metric.name == name)
    return next(number for found, number in metric.read(runtime) if found == labels)


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "event", "") == event]


def fields(record: logging.LogRecord) -> dict[str, Any]:
    names = ("policy", "callee", "operation", "reason", "omitted")
    return {name: vars(record)[name] for name in names if name in vars(record)}


async def unavailable() -> None:
    raise CalleeError(CALL)


async def fine() -> int:
    return 1


async def fail(runtime: Runtime, times: int, fn: Callable[[], Awaitable[Any]] = unavailable) -> VoiceRuntimeError:
    last: VoiceRuntimeError | None = None
    for _ in range(times):
        with pytest.raises(VoiceRuntimeError) as failed:
            await runtime.call(CALL, fn)
        last = failed.value
    assert last is not None
    return last


@pytest.fixture(autouse=True)
def _every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "voice_runtime")


async def test_a_breaker_that_opens_and_closes_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, circuit_breaker=BREAKER)
    await fail(runtime, 3)
    (opened,) = lines(caplog, "transition")
    assert opened.getMessage() == f"circuit breaker of {CALL} opened for 42 s: consecutive_failures"
    assert opened.levelname == "WARNING"
    assert fields(opened) == {
        "policy": "circuit_breaker",
        "callee": "retrieval-service",
        "operation": "search",
        "reason": "consecutive_failures",
    }
    assert value(runtime, "voice_circuitbreaker_state", CALL, "open") == 1
    clock.advance(43)
    for _ in range(BREAKER.success_threshold):
        await runtime.call(CALL, fine)
    assert [line.getMessage() for line in lines(caplog, "transition")[1:]] == [
        f"circuit breaker of {CALL} admits probes",
        f"circuit breaker of {CALL} closed",
    ]
    assert value(runtime, "voice_circuitbreaker_state", CALL, "closed") == 1


async def test_a_breaker_that_opens_again_logs_the_failed_probe_as_the_reason(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, circuit_breaker=BREAKER)
    await fail(runtime, 3)
    clock.advance(43)
    await fail(runtime, 1)
    assert lines(caplog, "transition")[-1].getMessage() == f"circuit breaker of {CALL} opened for 63 s: failed_probe"


async def test_a_storm_of_rejections_writes_few_lines_and_counts_each_rejection(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, circuit_breaker=BREAKER)
    await fail(runtime, 3)
    caplog.clear()
    for _ in range(10_000):
        clock.advance(0.003)
        error = await fail(runtime, 1)
    assert isinstance(error, CircuitOpenError)
    rejected = lines(caplog, "rejected")
    assert 2 <= len(caplog.records) == len(rejected) <= 10
    assert rejected[0].getMessage() == f"circuit breaker of {CALL} is open for another 42 s"
    assert fields(rejected[0])["reason"] == "CircuitOpenError"
    assert fields(rejected[1])["omitted"] == pytest.approx(QUIET / 0.003, abs=2)
    assert value(runtime, "voice_call_rejected_total", CALL, "circuit_breaker") == 10_000
    assert value(runtime, "voice_circuitbreaker_not_permitted_calls_total", CALL) == 10_000


async def test_an_exhausted_retry_budget_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, retry=Retry(max_retries=3, budget=RetryBudget(ratio=Ratio("0%"), reserve=1)))
    await fail(runtime, 1)
    (spent,) = lines(caplog, "exhausted")
    assert spent.getMessage() == f"retry of {CALL} gave up after attempt 2 (budget): CalleeError"
    assert fields(spent)["reason"] == "budget"
    assert (fields(spent)["callee"], fields(spent)["operation"]) == ("retrieval-service", "search")
    assert value(runtime, "voice_call_exhausted_total", CALL, "budget") == 1
    (repeated,) = lines(caplog, "retry")
    assert repeated.getMessage().startswith(f"{CALL} is called again in ")
    assert value(runtime, "voice_call_retries_total", CALL) == 1


async def test_a_full_bulkhead_of_a_call_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, bulkhead=Bulkhead(max_concurrent=1, max_queue=0))
    async with runtime.once(CALL):
        await fail(runtime, 1, fine)
    (full,) = lines(caplog, "rejected")
    assert full.getMessage() == f"bulkhead of {CALL} has no free slot"
    assert fields(full)["policy"] == "bulkhead"
    assert value(runtime, "voice_call_rejected_total", CALL, "bulkhead") == 1


def test_a_thread_that_cannot_start_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    runtime = loaded(tmp_path, clock)
    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(NoThreadError):
        runtime.call_sync(CALL, lambda: 1)
    (refused,) = lines(caplog, "rejected")
    assert refused.getMessage() == f"no thread could be started for {CALL}"
    assert value(runtime, "voice_call_rejected_total", CALL, "worker_threads") == 1


def test_requests_that_are_refused_before_they_begin_are_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    limits = (RateLimit(limit=TokenBucket(rate=Rate("1/s"), burst=2)),)
    runtime = loaded(tmp_path, clock, {"rate_limits": limits, "bulkhead": Bulkhead(max_concurrent=1, max_queue=0)})
    with runtime.request("run"), pytest.raises(CallRejectedError), runtime.request("run"):
        pass
    with pytest.raises(RateLimitedError), runtime.request("run"):
        pass
    with pytest.raises(DeadlineExceededError), runtime.request("run", remaining=0):
        pass
    bulkhead, limit = lines(caplog, "rejected")
    assert bulkhead.getMessage() == "bulkhead of run has no free slot"
    assert limit.getMessage() == "rate limit of run is reached; retry after 1 s"
    assert fields(limit) == {"policy": "rate_limit", "operation": "run", "reason": "RateLimitedError"}
    assert [line.getMessage() for line in lines(caplog, "timeout")] == ["deadline of run is exceeded"]
    for policy in ("bulkhead", "deadline", "rate_limit"):
        assert value(runtime, "voice_operation_rejected_requests_total", "run", policy) == 1
    assert value(runtime, "voice_operation_requests_total", "run", "successful") == 1


async def test_an_attempt_that_times_out_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock)
    await fail(runtime, 1, lambda: asyncio.sleep(50))
    (late,) = lines(caplog, "timeout")
    assert late.getMessage() == f"attempt of {CALL} timed out"
    assert value(runtime, "voice_call_timeouts_total", CALL, "attempt") == 1


async def test_a_fallback_that_answers_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock)
    runtime.fallback("memory.recall", lambda _: [])

    async def broken() -> list[str]:
        raise ConnectionRefusedError("token of ann")

    assert await runtime.call("memory.recall", broken) == []
    (fallen,) = lines(caplog, "fallback")
    assert fallen.getMessage() == "memory.recall failed and its fallback answers: ConnectionRefusedError"
    assert "ann" not in str(vars(fallen))
    assert value(runtime, "voice_call_fallbacks_total", "memory.recall") == 1


def test_a_change_of_the_degradation_level_is_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock)
    policy = runtime.bundle.degradation
    assert policy is not None
    for _ in range(policy.minimum_throughput):
        with pytest.raises(ZeroDivisionError), runtime.request("run"):
            raise ZeroDivisionError
    worse = lines(caplog, "transition")[-1]
    assert worse.getMessage().startswith("degradation level of agent-engine changed from ")
    assert fields(worse) == {"policy": "degradation", "reason": "enter_error_ratio"}
    assert worse.levelname == "WARNING"
    assert value(runtime, "voice_degradation_transitions_total") >= 1
    for _ in range(2):
        clock.advance(policy.sampling_duration.seconds + policy.dwell_duration.seconds + 1)
        with runtime.request("run"):
            pass
    assert fields(lines(caplog, "transition")[-1])["reason"] == "dwell_duration"
    assert lines(caplog, "transition")[-1].levelname == "INFO"


def test_refused_and_applied_reloads_are_logged(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock)
    digest = runtime.digest
    mount(tmp_path, "{}")
    assert not runtime.reload()
    (refused,) = lines(caplog, "refused")
    assert refused.levelname == "ERROR"
    assert f"is refused, {digest} stays in force: " in refused.getMessage()
    assert fields(refused) == {"policy": "bundle", "reason": "InvalidInputError"}
    assert value(runtime, "voice_policy_reloads_total", "refused") == 1
    mount(tmp_path, bundle(call(CALL)))
    assert runtime.reload()
    assert lines(caplog, "reloaded")[0].getMessage() == f"policy bundle {runtime.digest} is in force"
    assert value(runtime, "voice_policy_reloads_total", "applied") == 1


async def test_a_json_line_has_the_fields_of_the_event(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = loaded(tmp_path, clock, circuit_breaker=BREAKER)
    await fail(runtime, 3)
    line = json.loads(JsonFormatter(runtime).format(lines(caplog, "transition")[0]))
    assert (line["callee"], line["operation"], line["reason"]) == (
        "retrieval-service",
        "search",
        "consecutive_failures",
    )
    assert line["policy_digest"] == runtime.digest


def test_the_log_forgets_the_oldest_event_beyond_its_maximum(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(clock)
    for number in range(MAX_KEPT + 50):
        log.on_event(Event("transition", "circuit_breaker", f"rag-engine.context@{number}", after="closed"))
    assert len(caplog.records) == MAX_KEPT + 50
    log.on_event(Event("transition", "circuit_breaker", "rag-engine.context@0", after="closed"))
    assert len(caplog.records) == MAX_KEPT + 51  # the log has forgotten the first event
    log.on_event(Event("transition", "saga", "order/1", after="started"))
    assert len(caplog.records) == MAX_KEPT + 51  # events of sagas are not written


def test_the_error_for_an_unknown_name_suggests_the_most_similar_name(tmp_path: Path, clock: FakeClock) -> None:
    runtime = loaded(tmp_path, clock)
    with pytest.raises(UnknownCallError, match=f"did you mean '{CALL}'"):
        runtime.outbound("retrieval-service.serch")
    with pytest.raises(UnknownCallError, match=r"did you mean 'run'\?"):
        runtime.request("runn")
    with pytest.raises(UnknownCallError) as unlike:
        runtime.request("xyz")
    assert "did you mean" not in str(unlike.value)
    with runtime.request("run") as request, pytest.raises(UnknownNameError, match="matches no feature"):
        request.feature("citation")


async def test_the_repr_of_each_object_shows_its_state(tmp_path: Path, clock: FakeClock) -> None:
    limits = (RateLimit(limit=TokenBucket(rate=Rate("1/s"), burst=2)),)
    runtime = loaded(
        tmp_path,
        clock,
        {"rate_limits": limits},
        circuit_breaker=BREAKER,
        bulkhead=Bulkhead(max_concurrent=5),
        retry=Retry(max_retries=1),
    )
    assert repr(runtime).startswith("<Runtime agent-engine in test: 2 calls, 1 operations, bundle ")
    outbound = runtime.outbound(CALL)
    assert repr(outbound.breaker) == f"<CircuitBreaker {CALL}: closed>"
    assert outbound.breaker is not None
    outbound.breaker.open()
    assert repr(outbound.breaker) == f"<CircuitBreaker {CALL}: forced_open>"
    assert repr(outbound.bulkhead) == f"<Bulkhead {CALL}: 0 of 5 in flight, 0 waiting>"
    assert repr(outbound.retry).startswith(f"<Retry {CALL}: at most 1, ")
    assert repr(outbound).startswith(f"<Outbound {CALL}: attempt 10 s, overall 60 s, <Retry ")
    inbound = runtime.inbound("run")
    assert repr(inbound) == "<Inbound run: deadline 20 s, token_bucket, None>"
    assert repr(inbound.gates[0]) == "<Gate run: token_bucket, 0 admitted, 0 rejected>"
    with runtime.request("run") as request:
        assert repr(request) == "<Request run>"
    assert repr(request) == "<Request run: over>"
    assert repr(runtime.degradation) == "<Degradation agent-engine: normal>"


class Broken:
    def on_event(self, event: Event) -> None:
        raise RuntimeError(event.kind)


async def test_a_storm_of_listener_errors_writes_few_lines_and_counts_each_error(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = mount(tmp_path, bundle(call(CALL, circuit_breaker=BREAKER)))
    runtime = Runtime.load(mounted, clock=clock, listeners=[Broken()])
    breaker = runtime.outbound(CALL).breaker
    assert breaker is not None
    breaker.open()
    for _ in range(1_000):
        with pytest.raises(CircuitOpenError):
            await runtime.call(CALL, asyncio.sleep, 0)
    assert runtime.events.listener_errors == 1_001
    assert caplog.text.count("an event listener raised an error") == 1


async def test_a_storm_of_calls_that_ignore_their_cancellation_writes_few_lines(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    policy = Timeout(attempt=Duration("100ms"), overall=Duration("200ms"))
    runtime = loaded(tmp_path, clock, timeout=policy)
    for _ in range(250):
        with pytest.raises(AttemptTimeoutError):
            await runtime.call(CALL, stubborn)
    found = [record.getMessage() for record in caplog.records if "ignored its cancellation" in record.getMessage()]
    assert len(found) == 3
    assert "(100 more since the previous line)" in found[-1] or "(99 more since the previous line)" in found[-1]
