from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random
from typing import Any

import pytest
from voice_policies import CircuitBreaker as BreakerPolicy
from voice_policies import Duration, EnforcedBy, Ratio, RetryBudget, RetryCondition
from voice_policies import Retry as Policy
from voice_runtime import (
    AttemptTimeoutError,
    CalleeError,
    CircuitBreaker,
    CircuitOpenError,
    Failure,
    Outbound,
    RateLimitedError,
    RetriesExhaustedError,
    Retry,
    Runtime,
    attempt_number,
)
from voice_runtime.events import Events
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount
from tests.driver import Recorder, seeded, settle

GENEROUS = RetryBudget(ratio=Ratio("100%"), reserve=1000)


def retry(clock: FakeClock, seed: int = 7, **fields: Any) -> Retry:
    return Retry("callee", Policy(**({"budget": GENEROUS} | fields)), clock=clock, random=seeded(seed))


class Longest(Random):
    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Callee:
    def __init__(self, clock: FakeClock, failures: int = 10_000, error: Callable[[], Exception] | None = None) -> None:
        self.clock = clock
        self.failures = failures
        self.error = error or (lambda: CalleeError("callee", condition="unavailable"))
        self.calls: list[float] = []
        self.attempts: list[int] = []

    async def __call__(self) -> str:
        self.calls.append(self.clock.monotonic())
        self.attempts.append(attempt_number())
        if len(self.calls) <= self.failures:
            raise self.error()
        return "ok"


async def test_r1_a_cancellation_in_an_attempt_or_a_backoff_ends_the_call(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock, base_delay=Duration("5s")), attempt_timeout=60.0, clock=clock)
    started: list[int] = []

    async def hang() -> None:
        started.append(1)
        await asyncio.sleep(30)

    in_attempt = asyncio.create_task(pipeline.call(hang))
    await settle()
    in_attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_attempt
    assert len(started) == 1

    callee = Callee(clock)
    in_backoff = asyncio.create_task(pipeline.call(callee))
    await settle()
    assert pipeline.statistics.retries == 1
    in_backoff.cancel()
    with pytest.raises(asyncio.CancelledError):
        await in_backoff
    assert len(callee.calls) == 1


@pytest.mark.parametrize("pushback", [None, 10.0], ids=["backoff", "pushback"])
async def test_r2_a_call_fails_immediately_if_the_next_wait_exceeds_the_deadline(
    clock: FakeClock, pushback: float | None
) -> None:
    slow = Retry("callee", Policy(base_delay=Duration("10s")), clock=clock, random=Longest())
    pipeline = Outbound("callee", retry=slow, attempt_timeout=1.0, overall_timeout=3.0, clock=clock)
    callee = Callee(clock, error=lambda: CalleeError("callee", pushback, condition="unavailable"))
    begun = clock.monotonic()
    with pytest.raises(RetriesExhaustedError) as gave_up:
        await pipeline.call(callee)
    assert clock.monotonic() == begun
    assert (gave_up.value.reason, gave_up.value.attempts) == ("deadline", 1)
    assert isinstance(gave_up.value.__cause__, CalleeError)


async def test_r3_an_attempt_gets_the_remaining_time_and_the_last_error_is_the_cause(clock: FakeClock) -> None:
    eager = retry(clock, base_delay=Duration("0s"), max_retries=3)
    pipeline = Outbound("callee", retry=eager, attempt_timeout=1.0, overall_timeout=2.5, clock=clock)
    lengths: list[float] = []

    async def hang() -> None:
        begun = clock.monotonic()
        try:
            await asyncio.sleep(60)
        finally:
            lengths.append(clock.monotonic() - begun)

    with pytest.raises(TimeoutError) as ended:
        await pipeline.call(hang)
    assert lengths == pytest.approx([1, 1, 0.5])
    assert getattr(ended.value, "attempts", 0) == 3

    full = Outbound("callee", retry=eager, attempt_timeout=1.0, overall_timeout=60.0, clock=clock)
    with pytest.raises(RetriesExhaustedError) as gave_up:
        await full.call(hang)
    assert gave_up.value.attempts == 4
    assert isinstance(gave_up.value.__cause__, AttemptTimeoutError)


async def test_r4_the_retry_waits_as_long_as_the_callees_pushback(clock: FakeClock) -> None:
    patient = retry(clock, conditions=("resource_exhausted", "unavailable"))
    pipeline = Outbound("callee", retry=patient, overall_timeout=60.0, clock=clock)
    callee = Callee(clock, failures=1, error=lambda: CalleeError("callee", 2.5, condition="resource_exhausted"))
    assert await pipeline.call(callee) == "ok"
    assert callee.calls[1] - callee.calls[0] == pytest.approx(2.5)


@pytest.mark.parametrize(
    "pushback", [-1.0, float("nan"), float("-inf")], ids=["negative", "not a number", "minus infinity"]
)
async def test_r4_negative_or_unreadable_pushback_means_no_retry(clock: FakeClock, pushback: float) -> None:
    pipeline = Outbound("callee", retry=retry(clock), overall_timeout=60.0, clock=clock)
    callee = Callee(clock, error=lambda: CalleeError("callee", pushback, condition="unavailable"))
    with pytest.raises(RetriesExhaustedError, match="pushback"):
        await pipeline.call(callee)
    assert len(callee.calls) == 1


async def test_r4_resource_exhausted_without_a_pushback_is_not_retried(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock, conditions=("resource_exhausted",)), clock=clock)
    callee = Callee(clock, error=lambda: CalleeError("callee", condition="resource_exhausted"))
    with pytest.raises(CalleeError):
        await pipeline.call(callee)
    assert len(callee.calls) == 1


@pytest.mark.parametrize(
    ("condition", "attempts"), [("connection_failed", 2), ("unavailable", 1), ("attempt_timeout", 1)]
)
async def test_r5_a_non_idempotent_call_is_retried_only_if_it_was_never_sent(
    clock: FakeClock, tmp_path: Any, condition: RetryCondition, attempts: int
) -> None:
    never = call("smtp.send", idempotency="never", retry=Policy(conditions=("connection_failed",), budget=GENEROUS))
    runtime = Runtime.load(mount(tmp_path, bundle(never)), clock=clock)
    callee = Callee(clock, failures=1, error=lambda: CalleeError("callee", condition=condition))
    await asyncio.gather(runtime.call("smtp.send", callee), return_exceptions=True)
    assert len(callee.calls) == attempts


def test_r5_a_non_idempotent_call_may_retry_only_failed_connections() -> None:
    with pytest.raises(ValueError, match="connection_failed only"):
        call("smtp.send", idempotency="never", retry=Policy())


@pytest.mark.parametrize("rejection", [CircuitOpenError, RateLimitedError])
async def test_r6_rejections_are_not_retried_and_spend_no_budget(clock: FakeClock, rejection: Any) -> None:
    pipeline = Outbound("callee", retry=retry(clock), clock=clock)
    callee = Callee(clock, error=lambda: rejection("inner", 0.1))
    with pytest.raises(rejection):
        await pipeline.call(callee)
    assert len(callee.calls) == 1
    assert pipeline.retry is not None
    assert pipeline.retry.budget.retries.total(clock.monotonic()) == 0


async def test_r6_a_breaker_that_opens_between_attempts_ends_the_retries(clock: FakeClock) -> None:
    breaker = CircuitBreaker("callee", BreakerPolicy(consecutive_failures=2), clock=clock)
    pipeline = Outbound("callee", retry=retry(clock), breaker=breaker, clock=clock)
    callee = Callee(clock)
    with pytest.raises(CircuitOpenError) as refused:
        await pipeline.call(callee)
    assert (len(callee.calls), refused.value.attempts) == (2, 2)


async def test_r7_the_retry_budget_bounds_retries_during_an_outage(clock: FakeClock) -> None:
    careful = retry(clock, budget=RetryBudget(ratio=Ratio("10%"), reserve=3), base_delay=Duration("1s"))
    pipeline = Outbound("callee", retry=careful, clock=clock)
    callee = Callee(clock)
    calls = [asyncio.create_task(pipeline.call(callee)) for _ in range(1000)]
    await settle()
    assert pipeline.statistics.retries == 103  # includes the retries that wait in their backoff
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert len(callee.calls) <= 1000 + 103
    assert {getattr(result, "reason", "") for result in results} <= {"budget", "max_retries"}


async def test_r7_the_reserve_of_the_budget_lets_a_caller_with_few_calls_retry(clock: FakeClock) -> None:
    careful = retry(clock, budget=RetryBudget(ratio=Ratio("0%"), reserve=1))
    pipeline = Outbound("callee", retry=careful, clock=clock)
    assert await pipeline.call(Callee(clock, failures=1)) == "ok"
    with pytest.raises(RetriesExhaustedError, match="budget"):
        await pipeline.call(Callee(clock, failures=1))
    clock.advance(12)
    assert await pipeline.call(Callee(clock, failures=1)) == "ok"


async def test_r8_a_thousand_simultaneous_calls_have_separate_attempt_numbers(clock: FakeClock) -> None:
    pipeline = Outbound(
        "callee", retry=retry(clock, budget=RetryBudget(ratio=Ratio("100%"), reserve=1000)), clock=clock
    )
    callees = [Callee(clock, failures=number % 4) for number in range(1000)]
    await asyncio.gather(*(pipeline.call(callee) for callee in callees))
    for number, callee in enumerate(callees):
        assert callee.attempts == list(range(1, number % 4 + 2))


def test_r9_the_backoff_is_uniform_between_zero_and_the_growing_cap(clock: FakeClock) -> None:
    draws = retry(clock, base_delay=Duration("100ms"), max_delay=Duration("1s"))
    for number, cap in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (10_000, 1.0)):
        waits = sorted(draws.backoff(number) for _ in range(10_000))
        assert waits[0] >= 0
        assert waits[-1] <= cap
        # Kolmogorov-Smirnov against the uniform distribution: 1.95/√n is its 99.9 % bound.
        distance = max(abs(wait / cap - rank / 10_000) for rank, wait in enumerate(waits))
        assert distance < 0.0195, number


@pytest.mark.parametrize("retries", [0, 1, 3], ids="max_retries {}".format)
async def test_r10_max_retries_counts_the_attempts_after_the_first(clock: FakeClock, retries: int) -> None:
    pipeline = Outbound("callee", retry=retry(clock, max_retries=retries), clock=clock)
    callee = Callee(clock)
    with pytest.raises(RetriesExhaustedError) as gave_up:
        await pipeline.call(callee)
    assert (len(callee.calls), gave_up.value.attempts, gave_up.value.reason) == (
        retries + 1,
        retries + 1,
        "max_retries",
    )


async def test_r10_the_error_of_a_classifier_has_the_original_error_as_context(clock: FakeClock) -> None:
    def broken(_: Exception) -> Failure | None:
        raise LookupError("broken predicate")

    pipeline = Outbound("callee", retry=retry(clock), classify=broken, clock=clock)
    callee = Callee(clock, error=lambda: OSError("original"))
    with pytest.raises(LookupError) as failed:
        await pipeline.call(callee)
    assert len(callee.calls) == 1
    assert isinstance(failed.value.__context__, OSError)


async def test_r10_a_result_that_counts_as_a_failure_is_retried_and_the_last_result_is_returned(
    clock: FakeClock,
) -> None:
    pipeline = Outbound(
        "callee",
        retry=retry(clock, max_retries=2),
        classify_result=lambda status: Failure("unavailable") if status == 503 else None,
        clock=clock,
    )
    statuses = [503, 503, 200]

    async def respond(answers: list[int]) -> int:
        return answers.pop(0)

    assert await pipeline.call(respond, statuses) == 200
    assert await pipeline.call(respond, [503, 503, 503, 503]) == 503
    assert (pipeline.statistics.failed, pipeline.statistics.retries) == (5, 4)


async def test_r11_a_stream_is_not_retried_after_its_first_message(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock), attempt_timeout=1.0, overall_timeout=60.0, clock=clock)
    begun: list[int] = []

    async def messages(fail_at: int) -> AsyncIterator[int]:
        begun.append(1)
        for number in range(3):
            if number == fail_at and len(begun) < 3:
                raise CalleeError("callee", condition="unavailable")
            yield number

    assert [message async for message in pipeline.stream(messages, 0)] == [0, 1, 2]
    assert len(begun) == 3  # two attempts failed before their first message, so each was retried
    begun.clear()
    received: list[int] = []
    with pytest.raises(CalleeError):  # noqa: PT012  # the test also needs the messages before the error
        async for message in pipeline.stream(messages, 2):
            received.append(message)  # noqa: PERF401  # as above
    assert (received, len(begun)) == ([0, 1], 1)


async def test_r11_request_iterators_are_not_replayed(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock), clock=clock)
    sent: list[list[int]] = []

    async def upload(parts: Iterator[int]) -> None:
        sent.append(list(parts))
        raise CalleeError("callee", condition="unavailable")

    with pytest.raises(CalleeError):
        await pipeline.call(upload, iter([1, 2, 3]))
    assert sent == [[1, 2, 3]]


async def test_r12_the_transport_can_read_the_attempt_number(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock), clock=clock)
    callee = Callee(clock, failures=2)
    await pipeline.call(callee)
    assert callee.attempts == [1, 2, 3]
    assert attempt_number() == 0


async def test_r12_the_runtime_does_not_retry_a_call_that_another_layer_retries(
    clock: FakeClock, tmp_path: Any
) -> None:
    elsewhere = call(retry=Policy(), enforced_by=EnforcedBy(timeout="runtime", retry="mesh"))
    runtime = Runtime.load(mount(tmp_path, bundle(elsewhere)), clock=clock)
    callee = Callee(clock)
    with pytest.raises(CalleeError):
        await runtime.call("rag-engine", callee)
    assert len(callee.calls) == 1


async def test_r13_nested_pipelines_do_not_multiply_attempts(clock: FakeClock) -> None:
    inner = Outbound("inner", retry=retry(clock), clock=clock)
    outer = Outbound("outer", retry=retry(clock), clock=clock)
    callee = Callee(clock)

    async def handler() -> str:
        try:
            return await inner.call(callee)
        except RetriesExhaustedError as error:
            raise CalleeError("translated", condition="unavailable") from error

    with pytest.raises(RetriesExhaustedError, match="nested"):
        await outer.call(handler)
    assert len(callee.calls) == 4


async def test_event_listeners_get_each_retry_and_the_end_of_the_retries(clock: FakeClock) -> None:
    recorder = Recorder()
    pipeline = Outbound("callee", retry=retry(clock, max_retries=1), clock=clock, events=Events([recorder]))
    with pytest.raises(RetriesExhaustedError):
        await pipeline.call(Callee(clock))
    kinds = [(event.kind, event.attempt, event.reason) for event in recorder.events]
    assert kinds == [("retry", 1, ""), ("exhausted", 2, "max_retries")]


def test_synchronous_calls_are_retried_like_asynchronous_calls(clock: FakeClock) -> None:
    pipeline = Outbound("callee", retry=retry(clock), clock=clock)
    outcomes: Iterator[Exception | None] = iter([ConnectionResetError(), ConnectionResetError(), None])

    def reset_twice() -> str:
        if error := next(outcomes):
            raise error
        return "ok"

    begun = clock.monotonic()
    assert pipeline.call_sync(reset_twice) == "ok"
    assert clock.monotonic() > begun  # the backoff slept on the fake clock
