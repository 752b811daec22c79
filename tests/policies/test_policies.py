from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from voice_policies import (
    Adaptive,
    Bulkhead,
    CircuitBreaker,
    ClosedModel,
    Cooldown,
    Degradation,
    DegradationTrigger,
    Duration,
    FaultInjection,
    Health,
    HealthCheck,
    InvalidInputError,
    Model,
    ModelDeployment,
    ModelFallback,
    ModelPrice,
    ModelProvider,
    ModelRoute,
    Models,
    OutputLimit,
    Policy,
    PromptPrivacy,
    Rate,
    RateLimit,
    Ratio,
    ResponseCache,
    Retry,
    RetryBudget,
    Saga,
    SagaStep,
    ServiceLevel,
    SlidingWindow,
    StreamLatency,
    StreamTimeout,
    Timeout,
    TokenBucket,
    TokenBudget,
    Tracing,
    faults_of,
)
from voice_policies.names import DnsLabel

KINDS: list[type[Policy]] = [
    Adaptive,
    Bulkhead,
    CircuitBreaker,
    Cooldown,
    Degradation,
    DegradationTrigger,
    FaultInjection,
    Health,
    HealthCheck,
    Model,
    ModelDeployment,
    ModelFallback,
    ModelPrice,
    ModelProvider,
    ModelRoute,
    Models,
    OutputLimit,
    PromptPrivacy,
    RateLimit,
    ResponseCache,
    Retry,
    RetryBudget,
    Saga,
    SagaStep,
    ServiceLevel,
    SlidingWindow,
    StreamLatency,
    StreamTimeout,
    Timeout,
    TokenBucket,
    TokenBudget,
    Tracing,
]
BUCKET = {"algorithm": "token_bucket", "rate": "10/s", "burst": 20}
SHARED = {"limit": BUCKET, "scope": "distributed", "store": "redis.access"}
STEP = {"name": "store", "compensation": "remove"}


def test_a_circuit_breaker_has_the_platforms_defaults() -> None:
    breaker = CircuitBreaker()
    assert (breaker.consecutive_failures, str(breaker.break_duration)) == (5, "1m")
    assert (breaker.half_open_max_requests, breaker.success_threshold) == (3, 2)


def test_a_retry_has_the_platforms_defaults() -> None:
    retry = Retry()
    assert (retry.max_attempts, str(retry.base_delay), retry.multiplier, str(retry.max_delay)) == (
        4,
        "100ms",
        2.0,
        "10s",
    )
    assert retry.longest_wait() == Duration("700ms")


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (CircuitBreaker, {"success_threshold": 4}, "success_threshold 4 can never be reached"),
        (CircuitBreaker, {"success_threshold": 0}, "greater than or equal to 1"),
        (CircuitBreaker, {"consecutive_failures": None}, "the circuit breaker can never open"),
        (CircuitBreaker, {"failure_ratio": "0%"}, "must be above 0%"),
        (CircuitBreaker, {"slow_call_ratio": "50%"}, "go together"),
        (CircuitBreaker, {"max_break_duration": "1s"}, "is below break_duration 1m"),
        (CircuitBreaker, {"break_duration": "0s"}, "must be above 0s"),
        (CircuitBreaker, {"break_duration_multiplier": float("nan")}, "finite"),
        (Retry, {"max_retries": -1}, "greater than or equal to 0"),
        (Retry, {"max_retries": True}, "is true; expected a whole number"),
        (Retry, {"conditions": ["invalid_argument"]}, "'unavailable', 'attempt_timeout'"),
        (Retry, {"max_delay": "10ms"}, "is below base_delay 100ms"),
        (RetryBudget, {"window": "0s"}, "must be above 0s"),
        (Timeout, {"attempt": "2s", "overall": "1s"}, "no attempt could finish"),
        (Timeout, {"attempt": "0s", "overall": "1s"}, "must be above 0s"),
        (Bulkhead, {"max_concurrent": 1, "max_queue": 1}, "go together"),
        (RateLimit, {"limit": {"algorithm": "leaky"}}, "'token_bucket', 'sliding_window', 'adaptive'"),
        (
            RateLimit,
            {
                "limit": {"algorithm": "adaptive", "min_rate": "1/s", "max_rate": "2/s", "burst": 1},
                "scope": "distributed",
                "store": "redis.access",
            },
            "an adaptive limit is local",
        ),
        (RateLimit, {"limit": BUCKET, "scope": "distributed"}, "a distributed limit needs a store"),
        (RateLimit, {"limit": BUCKET, "store": "redis.access"}, "a local limit must have none"),
        (RateLimit, {"limit": BUCKET, "lease": 5}, "set scope to distributed"),
        (RateLimit, {**SHARED, "lease": 21}, "lease 21 is above the capacity of the limit: 20"),
        (RateLimit, {**SHARED, "local_share": "0%"}, "must be above 0%"),
        (Adaptive, {"min_rate": "2/s", "max_rate": "1/s", "burst": 1}, "max_rate 1/s is below min_rate 2/s"),
        (Adaptive, {"min_rate": "1/s", "max_rate": "2/s", "burst": 1, "decrease": "100%"}, "below 100%"),
        (DegradationTrigger, {"enter_error_ratio": "5%", "exit_error_ratio": "5%"}, "below enter_error_ratio"),
        (
            DegradationTrigger,
            {"enter_error_ratio": "5%", "exit_error_ratio": "1%", "enter_latency": "1s", "exit_latency": "1s"},
            "must be below enter_latency",
        ),
        (
            Degradation,
            {"features": [{"name": "a", "off_at": "full", "fallback": "x"}] * 2},
            "feature a is declared twice",
        ),
        (HealthCheck, {"name": "d", "kind": "disk", "target": "/", "critical": True}, "set it for a disk"),
        (
            HealthCheck,
            {"name": "d", "kind": "grpc", "target": "x", "critical": True, "max_latency": "1s"},
            "must be below timeout",
        ),
        (SagaStep, {"name": "store"}, "set exactly one of compensation"),
        (SagaStep, {**STEP, "no_compensation_because": "reads only"}, "set exactly one of compensation"),
        (SagaStep, {**STEP, "timeout": "1s"}, "is shorter than 2 attempts of 3s and 100ms of backoff"),
        (
            SagaStep,
            {"name": "read", "no_compensation_because": "reads only", "compensation_calls": ["redis.access"]},
            "redis.access, but the step has no compensation",
        ),
        (Saga, {"name": "s", "timeout": "1m", "steps": [STEP, STEP]}, "step store is declared twice"),
        (Saga, {"name": "s", "timeout": "1m", "steps": [STEP, {**STEP, "name": "b"}]}, "remove undoes two steps"),
        (
            Saga,
            {"name": "s", "timeout": "1m", "steps": [STEP, {"name": "remove", "compensation": "b"}]},
            "remove is the name of both a step and a compensation",
        ),
        (Saga, {"name": "s", "timeout": "1m", "steps": [{**STEP, "with_previous": True}]}, "store is the first"),
        (
            Saga,
            {"name": "s", "timeout": "1s", "steps": [STEP]},
            "shorter than the timeouts of all stages together: set at least 10s",
        ),
        (Saga, {"name": "s", "timeout": "1m", "started_by": "uploaded", "steps": [STEP]}, "expected text such as"),
        (ServiceLevel, {"availability": "100%", "latency": "1s"}, "nothing is always up"),
        (FaultInjection, {"enabled": False}, "True"),
        (Tracing, {"endpoint": "collector:4317"}, "expected text such as"),
    ],
)
def test_impossible_values_are_refused(kind: type[Policy], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(values)
    assert said in str(InvalidInputError("policy", faults_of(caught.value, kind)))


@given(
    count=st.integers(1, 10**9 - 1),
    unit=st.sampled_from("smhd"),
    replicas=st.integers(1, 100),
    burst=st.integers(1, 10**6),
)
def test_a_replica_gets_its_share_of_a_token_bucket_rounded_down(
    count: int, unit: str, replicas: int, burst: int
) -> None:
    share = Ratio(f"{1 / replicas:.11f}")
    limit = RateLimit.model_validate({**SHARED, "limit": {**BUCKET, "rate": f"{count}/{unit}", "burst": burst}})
    one = limit.model_copy(update={"local_share": share}).of_one_replica()
    assert isinstance(one.limit, TokenBucket)
    assert isinstance(limit.limit, TokenBucket)
    assert one.scope == "local"
    assert one.store is None
    exact, a_day = _per_second(limit.limit.rate) * share.fraction, Fraction(1, 86_400)
    given = _per_second(one.limit.rate)
    assert given <= max(exact, a_day)
    assert given > min(exact * Fraction("0.999"), exact - a_day)
    assert one.limit.burst == max(1, int(burst * share.fraction))


def test_a_replica_gets_at_least_one_event_a_day_of_a_token_bucket() -> None:
    limit = RateLimit.model_validate({**SHARED, "limit": {**BUCKET, "rate": "1/d"}, "local_share": "1%"})
    one = limit.of_one_replica()
    assert isinstance(one.limit, TokenBucket)
    assert one.limit.rate == Rate("1/d")


def _per_second(rate: Rate) -> Fraction:
    return Fraction(rate.count, rate.SECONDS[rate.unit])


@pytest.mark.parametrize(("share", "own"), [("15%", 15), ("25%", 25), ("29%", 29), ("57%", 57)])
def test_a_replica_gets_the_exact_share_of_a_sliding_window(share: str, own: int) -> None:
    assert _share_of_a_sliding_window(share) == SlidingWindow(limit=own, window=Duration("10s"))


def test_a_replica_gets_at_least_one_admission_of_a_sliding_window() -> None:
    assert _share_of_a_sliding_window("0.1%") == SlidingWindow(limit=1, window=Duration("10s"))


def _share_of_a_sliding_window(share: str) -> Any:
    window = {"algorithm": "sliding_window", "limit": 100, "window": "10s"}
    return RateLimit.model_validate({**SHARED, "limit": window, "local_share": share}).of_one_replica().limit


def test_one_error_names_all_conflicts() -> None:
    with pytest.raises(ValidationError) as caught:
        CircuitBreaker(success_threshold=9, max_break_duration=Duration("1s"), slow_call_ratio=Ratio("5%"))
    assert len(faults_of(caught.value, CircuitBreaker)) == 3


def test_one_error_names_all_faults_of_a_saga() -> None:
    steps = [STEP, {"name": "embed"}, {**STEP, "timeout": "1s"}, {**STEP, "retry": {"retries": 1}}]
    with pytest.raises(ValidationError) as caught:
        Saga.model_validate({"name": "s", "timeout": "1m", "steps": steps})
    assert [fault.path for fault in faults_of(caught.value, Saga)] == ["steps[1]", "steps[2]", "steps[3].retry.retries"]


def test_a_stage_of_parallel_steps_needs_the_time_of_the_longest_step() -> None:
    steps = [
        {**STEP, "timeout": "20s"},
        {"name": "index", "compensation": "b", "with_previous": True},
        {"name": "tell", "no_compensation_because": "a sent message cannot be taken back"},
    ]
    saga = Saga.model_validate({"name": "s", "timeout": "30s", "steps": steps})
    assert [[step.name for step in stage] for stage in saga.stages] == [["store", "index"], ["tell"]]


@pytest.mark.parametrize("kind", KINDS)
def test_policies_are_immutable_and_refuse_unknown_keys(kind: type[Policy]) -> None:
    assert kind.model_config["frozen"]
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"no_such_key": 1})
    assert "not a known key" in str(InvalidInputError("policy", faults_of(caught.value, kind)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["10%", "1s", "5/s"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_input_is_accepted_or_refused_with_faults(kind: type[Policy], data: st.DataObject) -> None:
    keys = st.sampled_from([*kind.model_fields, "unknown"])
    values = data.draw(st.dictionaries(keys, VALUES, max_size=5))
    try:
        kind.model_validate(values)
    except ValidationError as error:
        faults = faults_of(error, kind)
        assert faults
        assert all(fault.path and fault.value and fault.accepted for fault in faults if fault.value != "is refused")


def test_the_refusal_of_a_text_contains_an_example_instead_of_a_pattern() -> None:
    class Named(ClosedModel):
        name: DnsLabel

    def refusal(name: object) -> str:
        with pytest.raises(ValidationError) as refused:
            Named.model_validate({"name": name})
        return str(faults_of(refused.value, Named)[0])

    assert refusal("Search") == "name: is 'Search'; expected text such as rag-engine, at most 63 characters"
    assert refusal("x" * 64).endswith("; expected text such as rag-engine, at most 63 characters")
    assert refusal(7) == "name: is 7; expected text: put it in quotes"
    schema = Named.model_json_schema()["properties"]["name"]
    assert (schema["pattern"], schema["maxLength"]) == (r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", 63)
