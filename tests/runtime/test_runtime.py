from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import voice_runtime
from voice_policies import Bulkhead as BulkheadPolicy
from voice_policies import (
    CircuitBreaker,
    Duration,
    EnforcedBy,
    FaultInjection,
    Rate,
    RateLimit,
    Ratio,
    Retry,
    TokenBucket,
)
from voice_policies import Timeout as TimeoutPolicy
from voice_runtime import (
    BulkheadFullError,
    CalleeError,
    Caller,
    CircuitOpenError,
    DeadlineExceededError,
    FailedResultError,
    Failure,
    RateLimitedError,
    Runtime,
    SoftCallError,
    UnknownCallError,
    UnknownNameError,
    VoiceRuntimeError,
    attempt_number,
    remaining,
)
from voice_runtime.outcome import PERMANENT
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount, operation
from tests.driver import Recorder, seeded, settle


async def unavailable() -> str:
    raise CalleeError("callee", condition="unavailable")


async def answer(text: str = "answer") -> str:
    return text


async def test_a_call_is_found_by_its_name_and_by_an_unambiguous_callee(tmp_path: Path) -> None:
    mount(tmp_path, bundle(call("rag-engine.context"), call("model-adapter.generate"), call("model-adapter.rewrite")))
    runtime = Runtime.load(tmp_path)
    assert await runtime.call("rag-engine.context", answer) == "answer"
    assert await runtime.call("rag-engine", answer, text="by callee") == "by callee"
    for ambiguous in ("model-adapter", "nobody"):
        with pytest.raises(UnknownCallError) as unknown:
            await runtime.call(ambiguous, answer)
        assert unknown.value.known == ("model-adapter.generate", "model-adapter.rewrite", "rag-engine.context")
        assert "model-adapter.generate, model-adapter.rewrite, rag-engine.context" in str(unknown.value)
    with pytest.raises(UnknownCallError, match="inbound operation"):
        runtime.request("run")


async def test_the_runtime_does_not_enforce_a_policy_of_another_layer(clock: FakeClock, tmp_path: Path) -> None:
    elsewhere = call(
        "postgresql.query",
        protocol="postgresql",
        retry=Retry(),
        circuit_breaker=CircuitBreaker(),
        bulkhead=BulkheadPolicy(max_concurrent=1),
        enforced_by=EnforcedBy(timeout="driver", retry="mesh", circuit_breaker="mesh", bulkhead="driver"),
    )
    runtime = Runtime.load(mount(tmp_path, bundle(elsewhere)), clock=clock)
    outbound = runtime.outbound("postgresql")
    assert (outbound.retry, outbound.breaker, outbound.bulkhead) == (None, None, None)
    await runtime.call("postgresql", asyncio.sleep, 3600)  # no timeout ends the call
    assert await runtime.call("postgresql", _remaining) is None


async def _remaining() -> float | None:
    return remaining()


async def test_the_fallback_answers_a_failed_soft_call(clock: FakeClock, tmp_path: Path) -> None:
    soft = call(necessity="soft", fallback="no citations", circuit_breaker=CircuitBreaker(consecutive_failures=2))
    runtime = Runtime.load(mount(tmp_path, bundle(soft, call("model-adapter.generate"))), clock=clock)
    for _ in range(2):
        with pytest.raises(SoftCallError):
            await runtime.call("rag-engine", unavailable)
    runtime.fallback("rag-engine", lambda error: f"instead of {type(error).__name__}")
    assert await runtime.call("rag-engine", answer) == "instead of CircuitOpenError"
    assert runtime.call_sync("rag-engine", lambda: "never") == "instead of CircuitOpenError"
    assert runtime.outbound("rag-engine").statistics.fallbacks == 2
    with pytest.raises(ValueError, match="hard call"):
        runtime.fallback("model-adapter", lambda _: "")
    mount(tmp_path, bundle(soft))
    assert runtime.reload()
    assert (await runtime.call("rag-engine", answer)).startswith("instead")


async def test_a_fallback_does_not_hide_the_callers_own_errors_or_cancellation(
    clock: FakeClock, tmp_path: Path
) -> None:
    async def missing() -> str:
        raise LookupError("no such thing")

    runtime = Runtime.load(
        mount(tmp_path, bundle(call(necessity="soft", fallback="nothing"))),
        classify=lambda error: None if isinstance(error, LookupError) else PERMANENT,
        clock=clock,
    )

    async def instead(_: Exception) -> str:
        return "instead"

    runtime.fallback("rag-engine", instead)
    assert await runtime.call("rag-engine", unavailable) == "instead"
    with pytest.raises(LookupError):
        await runtime.call("rag-engine", missing)
    task = asyncio.ensure_future(runtime.call("rag-engine", asyncio.sleep, 0.5))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_decorated_functions_keep_their_kind_and_name(tmp_path: Path) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(call())))

    @runtime.protect("rag-engine")
    async def fetch(question: str) -> str:
        """Fetch."""
        return question + str(attempt_number())

    @runtime.protect("rag-engine")
    async def tokens(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @runtime.protect("rag-engine")
    def blocking() -> int:
        return attempt_number()

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")
    assert await fetch("a") == "a1"
    assert [token async for token in tokens(3)] == [0, 1, 2]
    assert blocking() == 1
    with pytest.raises(UnknownCallError):
        runtime.protect("nobody")


async def test_once_makes_one_attempt_without_retries(clock: FakeClock, tmp_path: Path) -> None:
    guarded = call(retry=Retry(), circuit_breaker=CircuitBreaker(), bulkhead=BulkheadPolicy(max_concurrent=1))
    runtime = Runtime.load(mount(tmp_path, bundle(guarded)), clock=clock)
    async with runtime.once("rag-engine"):
        assert attempt_number() == 1
        with pytest.raises(BulkheadFullError):
            await runtime.call("rag-engine", answer)
    for _ in range(5):
        with pytest.raises(CalleeError):
            async with runtime.once("rag-engine"):
                await unavailable()
    with pytest.raises(CircuitOpenError):
        async with runtime.once("rag-engine"):
            pass
    assert runtime.outbound("rag-engine").statistics.retries == 0


async def test_a_bulkhead_queues_calls_in_order_and_refuses_them_after_queue_timeout(
    clock: FakeClock, tmp_path: Path
) -> None:
    narrow = BulkheadPolicy(max_concurrent=1, max_queue=3, queue_timeout=Duration("3s"))
    slow = call(bulkhead=narrow, timeout=TimeoutPolicy(attempt=Duration("10s"), overall=Duration("1m")))
    runtime = Runtime.load(mount(tmp_path, bundle(slow)), clock=clock)
    order: list[int] = []

    async def work(number: int) -> None:
        order.append(number)
        await asyncio.sleep(2)

    calls = [asyncio.ensure_future(runtime.call("rag-engine", work, number)) for number in range(5)]
    await settle()
    calls[1].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert order == [0, 2]  # 3 waited too long, 4 found the queue full, 1 was cancelled
    assert [type(result).__name__ for result in results] == [
        "NoneType",
        "CancelledError",
        "NoneType",
        "BulkheadFullError",
        "BulkheadFullError",
    ]
    bulkhead = runtime.outbound("rag-engine").bulkhead
    assert bulkhead is not None
    assert (bulkhead.in_flight, bulkhead.waiting, bulkhead.rejected) == (0, 0, 2)


def test_a_bulkhead_is_shared_by_threads() -> None:
    bulkhead = voice_runtime.Bulkhead(
        "callee", BulkheadPolicy(max_concurrent=3, max_queue=50, queue_timeout=Duration("10s"))
    )
    most, lock, inside = 0, threading.Lock(), 0

    def work() -> None:
        nonlocal most, inside
        for _ in range(50):
            if not bulkhead.try_enter():
                bulkhead.enter_sync(10)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            bulkhead.leave()

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most <= 3
    assert (bulkhead.in_flight, bulkhead.waiting, bulkhead.rejected) == (0, 0, 0)


async def test_requests_pass_limits_bulkhead_and_deadline_in_that_order(clock: FakeClock, tmp_path: Path) -> None:
    limits = (RateLimit(limit=TokenBucket(rate=Rate("1/s"), burst=2), key="tenant"),)
    inbound = operation("run", rate_limits=limits, bulkhead=BulkheadPolicy(max_concurrent=1), deadline=Duration("2s"))
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(inbound,))), clock=clock, listeners=[recorder := Recorder()])
    acme = Caller(tenant="acme")
    async with runtime.request("run", acme) as request:
        assert request.level == "normal"
        with pytest.raises(BulkheadFullError):
            async with runtime.request("run", acme):
                pass
    with pytest.raises(RateLimitedError) as limited:
        async with runtime.request("run", acme):
            pass
    assert limited.value.retry_after == pytest.approx(1, abs=0.001)
    with pytest.raises(DeadlineExceededError):
        async with runtime.request("run", Caller(tenant="other")):
            await asyncio.sleep(3)
    statistics = runtime.inbound("run").statistics
    assert (statistics.successful, statistics.failed, statistics.deadlines_exceeded, statistics.in_flight) == (
        1,
        1,
        1,
        0,
    )
    assert [event.policy for event in recorder.of("rejected")] == ["bulkhead", "rate_limit"]


def test_a_request_can_be_served_synchronously(tmp_path: Path, clock: FakeClock) -> None:
    once = (RateLimit(limit=TokenBucket(rate=Rate("1/m"), burst=1)),)
    inbound = operation("run", deadline=Duration("2s"), rate_limits=once)
    runtime = Runtime.load(mount(tmp_path, bundle(inbound=(inbound,))), clock=clock)
    with runtime.request("run", remaining=5.0):
        assert remaining() == 2.0
        clock.advance(0.5)
        assert remaining() == 1.5
    assert remaining() is None
    with pytest.raises(RateLimitedError), runtime.request("run"):
        pass
    clock.advance(60)
    with pytest.raises(DeadlineExceededError), runtime.request("run"):
        clock.advance(3)
    assert runtime.inbound("run").statistics.in_flight == 0


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "not allowed"])
async def test_the_faults_of_the_policy_are_injected_only_if_the_process_allows_it(
    clock: FakeClock, tmp_path: Path, *, allowed: bool
) -> None:
    faults = FaultInjection(
        enabled=True,
        latency=Duration("200ms"),
        latency_ratio=Ratio("50%"),
        error_ratio=Ratio("20%"),
        abort_ratio=Ratio("20%"),
        seed=7,
    )
    mount(tmp_path, bundle(call(), fault_injection=faults))
    runtime = Runtime.load(tmp_path, clock=clock, allow_fault_injection=allowed)
    reached = failed = 0

    async def callee() -> None:
        nonlocal reached
        reached += 1

    begun = clock.monotonic()
    for _ in range(1000):
        try:
            await runtime.call("rag-engine", callee)
        except CalleeError:
            failed += 1
    if allowed:
        assert 750 < reached < 850  # a fifth of the calls was not sent
        assert 300 < failed < 420  # and a fifth of the sent calls failed after the callee's work
        assert 85 < clock.monotonic() - begun < 115  # seconds: half of 1,000 calls wait 200 ms
        with pytest.raises(CalleeError):
            deque(runtime.call_sync("rag-engine", int) for _ in range(100))
    else:
        assert (reached, failed, clock.monotonic()) == (1000, 0, begun)


async def test_no_faults_are_injected_without_the_policy(clock: FakeClock, tmp_path: Path) -> None:
    runtime = Runtime.load(mount(tmp_path, bundle(call())), clock=clock, allow_fault_injection=True)
    assert runtime.outbound("rag-engine").fault_injection is None


async def test_the_same_seed_gives_the_same_backoffs(tmp_path: Path) -> None:
    mount(tmp_path, bundle(call(retry=Retry())))
    waits = []
    for _ in range(2):
        clock, recorder = FakeClock(), Recorder()
        runtime = Runtime.load(tmp_path, clock=clock, random=seeded(3), listeners=[recorder])
        retry = runtime.outbound("rag-engine").retry
        assert retry is not None
        waits.append([retry.backoff(number) for number in range(1, 5)])
    assert waits[0] == waits[1]


async def test_the_runtime_classifies_its_own_errors_without_the_registered_classifier(
    clock: FakeClock, tmp_path: Path
) -> None:
    runtime = Runtime.load(
        mount(tmp_path, bundle(call(circuit_breaker=CircuitBreaker(consecutive_failures=2)))),
        classify=lambda _: Failure("unavailable"),
        clock=clock,
    )

    async def refused() -> None:
        raise BulkheadFullError("further in")

    for _ in range(5):
        with pytest.raises(BulkheadFullError):
            await runtime.call("rag-engine", refused)
    assert await runtime.call("rag-engine", answer) == "answer"


def test_every_public_error_derives_from_a_base_error_of_the_runtime() -> None:
    errors = [
        value for value in vars(voice_runtime).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    for error in errors:
        assert error.__name__.endswith("Error")
        assert issubclass(error, VoiceRuntimeError | UnknownNameError | FailedResultError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CircuitOpenError("rag-engine", 1.5), "circuit breaker of rag-engine is open for another 1.5 s"),
        (DeadlineExceededError("rag-engine", None, 3), "deadline of rag-engine is exceeded after 3 attempts"),
        (CalleeError("rag-engine", condition="resource_exhausted"), "callee of rag-engine failed: resource exhausted"),
    ],
    ids=["open breaker", "exceeded deadline", "exhausted callee"],
)
def test_the_text_of_an_error_names_cause_and_target(error: VoiceRuntimeError, text: str) -> None:
    assert str(error) == text
