from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis
from voice_policies import Duration, InvalidInputError, Retry, Saga, SagaStep
from voice_saga import Definition, JournalEngine, SqliteJournal, StepContext
from voice_saga.redis_streams import RedisStreams
from voice_saga.temporal import TemporalEngine
from voice_saga.transport import Outbox, consume

from tests.saga.definitions import Log, saga, step


async def nothing(_: StepContext) -> Any:
    return None


def test_one_error_names_every_missing_and_every_superfluous_action() -> None:
    policy = saga(step("pay"), step("ship", undo=False))
    with pytest.raises(InvalidInputError) as refused:
        Definition(policy, {"pay": nothing, "undo-ship": nothing})
    assert str(refused.value).splitlines() == [
        "saga order version 1: 3 faults",
        "  ship: has no code; expected an asynchronous function",
        "  undo-pay: has no code; expected an asynchronous function",
        "  undo-ship: belongs to no step; expected pay, undo-pay, ship",
    ]


def test_an_action_that_cannot_be_called_is_refused() -> None:
    wrong: Any = "charge"
    with pytest.raises(InvalidInputError, match="undo-pay: has no code; expected an asynchronous function"):
        Definition(saga(step("pay")), {"pay": nothing, "undo-pay": wrong})


@pytest.mark.parametrize(
    "number",
    [
        *({"lease": 0}, {"lease": -1.0}, {"lease": nan}, {"lease": inf}, {"poll_interval": 0}, {"poll_interval": nan}),
        *({"concurrency": 0}, {"max_claims": 0}, {"grace": -1.0}, {"grace": nan}),
    ],
    ids=str,
)
def test_an_engine_with_a_number_out_of_range_is_refused(number: dict[str, Any]) -> None:
    ((name, value),) = number.items()
    with pytest.raises(ValueError, match=f"{name} of a saga engine must be .* not {value}"):
        JournalEngine(SqliteJournal("unused.db"), **number)


@pytest.mark.parametrize("number", [{"concurrency": 0}, {"grace": -1.0}, {"grace": nan}], ids=str)
def test_a_temporal_engine_with_a_number_out_of_range_is_refused(number: dict[str, Any]) -> None:
    client: Any = None
    ((name, value),) = number.items()
    with pytest.raises(ValueError, match=f"{name} of a saga engine must be .* not {value}"):
        TemporalEngine(client, **number)


@pytest.mark.parametrize(
    "number",
    [
        *({"max_length": 0}, {"max_deliveries": 0}, {"block": -1.0}, {"block": inf}),
        *({"redeliver_after": 0.0}, {"redeliver_after": nan}, {"redeliver_after": inf}),
    ],
    ids=str,
)
def test_a_transport_with_a_number_out_of_range_is_refused(number: dict[str, Any]) -> None:
    ((name, value),) = number.items()
    with pytest.raises(ValueError, match=f"{name} of RedisStreams must be .* not {value}"):
        RedisStreams(Redis(), **number)


@pytest.mark.parametrize("seconds", [0.0, -1.0, nan, inf])
def test_an_outbox_with_an_interval_out_of_range_is_refused(seconds: float) -> None:
    transport: Any = None
    with pytest.raises(ValueError, match=f"poll_interval of an outbox must be finite and above 0 s, not {seconds}"):
        Outbox(SqliteJournal("unused.db"), transport, poll_interval=seconds)


async def test_a_consumer_without_handlers_is_refused() -> None:
    transport: Any = None
    with pytest.raises(ValueError, match="consumer billing has no handlers"):
        await consume(transport, "billing", {})


def test_two_definitions_of_the_same_version_are_refused() -> None:
    log = Log()
    with pytest.raises(InvalidInputError, match="has version 1 twice"):
        JournalEngine(SqliteJournal("unused.db"), [log.definition(saga(step("pay"))) for _ in range(2)])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SagaStep(name="pay"), "set exactly one of compensation and no_compensation_because"),
        (lambda: saga(step("pay"), step("pay")), "step pay is declared twice"),
        (
            lambda: SagaStep(
                name="pay",
                compensation="refund",
                timeout=Duration("1s"),
                attempt_timeout=Duration("600ms"),
                retry=Retry(max_retries=1),
            ),
            "timeout 1s is shorter than 2 attempts of 600ms",
        ),
        (lambda: saga(step("pay"), timeout="1s"), "timeout 1s is shorter than the timeouts of all stages together"),
    ],
)
def test_a_contradictory_saga_policy_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make()


def fingerprint(policy: Saga) -> str:
    return Log().definition(policy).plan.fingerprint


def test_retries_and_timeouts_do_not_change_the_fingerprint() -> None:
    changed = saga(step("pay", retries=0), step("ship", timeout=Duration("20m")), timeout="2h")
    assert fingerprint(changed) == fingerprint(saga(step("pay"), step("ship")))


def test_changed_steps_or_a_new_version_change_the_fingerprint() -> None:
    changed = [
        saga(step("ship"), step("pay")),
        saga(step("pay"), step("ship", with_previous=True)),
        saga(step("pay"), step("ship", undo=False)),
        saga(step("pay"), step("ship"), step("thank")),
        saga(step("pay"), step("ship"), version=2),
    ]
    assert fingerprint(saga(step("pay"), step("ship"))) not in {fingerprint(policy) for policy in changed}
