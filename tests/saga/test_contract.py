"""The contract of all saga engines: the same definitions and calls lead to the same states, results and errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from voice_policies import Duration, Retry
from voice_runtime import CalleeError
from voice_saga import (
    InvalidSagaIdError,
    NotJsonError,
    Reply,
    SagaConflictError,
    SagaRecord,
    State,
    StepContext,
    UnknownSagaError,
)

from tests.driver import Recorder
from tests.saga.backends import JOURNALS, Backend
from tests.saga.definitions import QUICK, Log, eventually, saga, step

WAIT = 60


def history(record: SagaRecord) -> list[str]:
    return [f"{entry.step} {entry.kind}".strip() for entry in record.entries]


async def test_steps_run_in_order_and_get_the_results_of_earlier_steps(backend: Backend) -> None:
    log = Log()
    policy = saga(step("reserve"), step("pay"), step("ship", undo=False))
    async with backend([log.definition(policy)]) as engine:
        saga_id = await engine.start("order", {"item": 7})
        record = await engine.wait(saga_id, WAIT)
    assert (record.state, record.name, record.version, record.input) == ("completed", "order", 1, {"item": 7})
    assert log.done == ["reserve", "pay", "ship"]
    assert [context.input for context in log.contexts] == [{"item": 7}] * 3
    assert log.contexts[2].results == {"reserve": {"of": "reserve"}, "pay": {"of": "pay"}}
    assert log.contexts[1].idempotency_key == f"{saga_id}/pay/action"
    assert history(record) == [
        "started",
        "reserve began",
        "reserve succeeded",
        "pay began",
        "pay succeeded",
        "ship began",
        "ship succeeded",
        "completed",
    ]
    assert record.entries[0].at <= record.entries[-1].at


async def test_parallel_steps_run_at_the_same_time_and_the_next_stage_waits_for_all(backend: Backend) -> None:
    log = Log()
    both = asyncio.Barrier(2)

    async def meet(_: StepContext) -> Any:
        await both.wait()

    log.does("vectors", meet)
    log.does("graph", meet)
    policy = saga(step("parse"), step("vectors"), step("graph", with_previous=True), step("finish"))
    async with backend([log.definition(policy)]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "completed"
    assert (log.done[0], log.done[-1]) == ("parse", "finish")


async def test_a_failed_step_and_all_earlier_steps_are_compensated_in_reverse_order(backend: Backend) -> None:
    log = Log()
    log.fails("ship", lambda: ValueError("no such street"))
    policy = saga(step("reserve"), step("look", undo=False), step("pay"), step("ship"), step("thank"))
    async with backend([log.definition(policy)]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "compensated"
    assert record.reason == "ship: ValueError: no such street"
    assert log.done == ["reserve", "look", "pay", "ship", "undo-ship", "undo-pay", "undo-reserve"]
    assert log.contexts[-2].results["pay"] == {"of": "pay"}, "a compensation gets the result of its step"


async def test_a_transient_failure_is_retried_as_often_as_the_policy_allows(backend: Backend) -> None:
    log = Log()
    log.fails("pay", lambda: CalleeError("bank"), times=2)
    log.fails("ship", lambda: CalleeError("post"))
    policy = saga(step("pay", retries=2), step("ship", retries=1))
    async with backend([log.definition(policy)]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "compensated"
    assert [log.done.count(name) for name in ("pay", "ship")] == [3, 2]


async def test_a_permanent_failure_is_not_retried(backend: Backend) -> None:
    log = Log()
    log.fails("pay", lambda: ValueError("no"))
    async with backend([log.definition(saga(step("pay", retries=2)))]) as engine:
        await engine.wait(await engine.start("order"), WAIT)
    assert log.done == ["pay", "undo-pay"]


async def test_a_hanging_step_is_ended_by_its_timeout_and_is_compensated(backend: Backend) -> None:
    log = Log()
    log.hangs("pay")
    times: Any = {"attempt_timeout": Duration("200ms"), "timeout": Duration("1s")}
    async with backend([log.definition(saga(step("reserve"), step("pay", **times)))]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "compensated"
    assert "AttemptTimeoutError" in record.reason
    assert log.done == ["reserve", "pay", "pay", "undo-pay", "undo-reserve"]


async def test_waiting_for_an_outcome_ends_if_step_and_saga_time_out_at_the_same_time(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    times: Any = {"attempt_timeout": Duration("200ms"), "timeout": Duration("800ms")}
    async with backend([log.definition(saga(step("pay", **times), timeout="800ms"))]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert (record.state, record.reason) == ("compensated", "pay: no outcome was delivered in time")


@pytest.mark.parametrize("backend", JOURNALS, indirect=True)  # Temporal's timers may be late
async def test_a_saga_whose_timeout_passes_while_no_worker_runs_is_compensated(backend: Backend) -> None:
    log = Log()
    log.hangs("pay")
    times: Any = {"attempt_timeout": Duration("1s"), "timeout": Duration("1s")}
    definition = log.definition(saga(step("pay", retries=0, **times), timeout="1s"))
    async with backend([definition], grace=0.05) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _contains(log, "pay"))
    log.does("pay", lambda _: asyncio.sleep(0.1))
    await asyncio.sleep(1)
    async with backend([definition]) as engine:
        record = await engine.wait(saga_id, WAIT)
    assert (record.state, log.done[-1]) == ("compensated", "undo-pay")


async def test_a_failing_compensation_is_retried_then_parked_and_can_be_resumed_after_a_fix(backend: Backend) -> None:
    log = Log()
    log.fails("ship", lambda: ValueError("no"))
    log.fails("undo-pay", lambda: KeyError("account"), times=2)
    policy = saga(step("reserve"), step("pay"), step("ship"))
    async with backend([log.definition(policy)]) as engine:
        saga_id = await engine.start("order")
        record = await engine.wait(saga_id, WAIT)
        assert (record.state, record.reason) == ("parked", "compensation_failed: pay: KeyError: 'account'")
        assert log.done.count("undo-pay") == 2
        assert "undo-reserve" not in log.done
        await eventually(lambda: is_listed(engine, saga_id, "parked"))
        assert not await is_listed(engine, saga_id, "compensating")
        await engine.resume(saga_id, "the account is back")
        record = await engine.wait(saga_id, WAIT)
    assert record.state == "compensated"
    assert log.done[-2:] == ["undo-pay", "undo-reserve"]
    assert history(record)[-6:] == [
        "parked",
        "resumed",
        "pay undone",
        "reserve undoing",
        "reserve undone",
        "compensated",
    ]


async def is_listed(engine: Any, saga_id: str, state: State) -> bool:
    """True if the list of a state contains the saga. Temporal updates its list late, and lists sagas of other tests."""
    return saga_id in {found.id for found in await engine.list(state=state, name="order")}


async def _later(_: StepContext) -> Any:
    return Reply.LATER


async def test_an_asynchronous_step_ends_with_its_first_outcome(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: is_in(engine, saga_id, "waiting"))
        assert await engine.deliver(saga_id, "pay", {"receipt": 1})
        assert await engine.deliver(saga_id, "pay", {"receipt": 2})
        record = await engine.wait(saga_id, WAIT)
        assert await engine.deliver(saga_id, "pay", error="too late")
        assert (await engine.show(saga_id)).entries == record.entries
    assert record.state == "completed"
    assert log.contexts[-1].results["pay"] == {"receipt": 1}


async def is_in(engine: Any, saga_id: str, state: str) -> bool:
    return bool((await engine.show(saga_id)).state == state)


async def test_an_outcome_that_arrives_before_the_step_waits_is_kept(backend: Backend) -> None:
    log = Log()

    async def answered_before_the_wait(context: StepContext) -> Any:
        await engine.deliver(context.saga_id, "pay", "paid")
        return Reply.LATER

    log.does("pay", answered_before_the_wait)
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "completed"
    assert log.contexts[-1].results["pay"] == "paid"


async def test_a_step_whose_outcome_is_an_error_or_never_arrives_is_compensated(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    times: Any = {"attempt_timeout": Duration("100ms"), "timeout": Duration("500ms")}
    async with backend([log.definition(saga(step("reserve"), step("pay", **times)))]) as engine:
        refused, silent = await engine.start("order"), await engine.start("order")
        await engine.deliver(refused, "pay", error="no cover")
        assert (await engine.wait(refused, WAIT)).reason == "pay: no cover"
        record = await engine.wait(silent, WAIT)
    assert (record.state, record.reason) == ("compensated", "pay: no outcome was delivered in time")
    assert log.done.count("undo-reserve") == 2


async def test_an_error_may_contain_any_character(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    log.fails("ship", lambda: ValueError("bad byte \0 and half a pair \ud800 in the file"))
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        thrown, delivered = await engine.start("order"), await engine.start("order")
        await engine.deliver(thrown, "pay")
        await engine.deliver(delivered, "pay", error="a\0b\udfff")
        assert (
            await engine.wait(thrown, WAIT)
        ).reason == r"ship: ValueError: bad byte ␀ and half a pair \ud800 in the file"
        assert (await engine.wait(delivered, WAIT)).reason == r"pay: a␀b\udfff"


async def test_unknown_sagas_and_inputs_that_are_not_json_are_reported(backend: Backend) -> None:
    async with backend([Log().definition(saga(step("pay")))]) as engine:
        assert not await engine.deliver("nobody", "pay")
        with pytest.raises(UnknownSagaError, match="nobody"):
            await engine.show("nobody")
        with pytest.raises(UnknownSagaError, match="known: order"):
            await engine.start("ordr")
        with pytest.raises(NotJsonError, match="the input is not a JSON value"):
            await engine.start("order", {1, 2})


@pytest.mark.parametrize(
    "saga_id", ["a\0b", "half a pair \ud800", "x" * 201, "", 5], ids=["NUL", "surrogate", "too long", "empty", "number"]
)
async def test_an_id_that_is_not_text_of_1_to_200_storable_characters_is_refused(
    backend: Backend, saga_id: Any
) -> None:
    async with backend([Log().definition(saga(step("pay")))]) as engine:
        for refused in (
            engine.start("order", saga_id=saga_id),
            engine.show(saga_id),
            engine.wait(saga_id, WAIT),
            engine.resume(saga_id),
            engine.deliver(saga_id, "pay"),
        ):
            with pytest.raises(InvalidSagaIdError, match="use 1 to 200 characters"):
                await refused


@pytest.mark.parametrize("limit", [0, -1, 2.5, "5", 10**30])
async def test_a_list_refuses_an_impossible_limit_and_finds_no_saga_with_an_empty_name(
    backend: Backend, limit: Any
) -> None:
    async with backend([Log().definition(saga(step("pay")))]) as engine:
        with pytest.raises(ValueError, match=f"must be a whole number from 1 to 2147483647, not {limit!r}"):
            await engine.list(limit=limit)
        await engine.wait(await engine.start("order"), WAIT)
        assert await engine.list(name="") == []


async def test_the_longest_id_is_accepted(backend: Backend) -> None:
    longest = "\N{GRINNING FACE}" * 200
    async with backend([Log().definition(saga(step("pay")))]) as engine:
        assert await engine.start("order", saga_id=longest) == longest
        assert (await engine.wait(longest, WAIT)).state == "completed"


async def test_an_outcome_for_a_step_with_an_impossible_name_changes_nothing(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    async with backend([log.definition(saga(step("pay")))]) as engine:
        saga_id = await engine.start("order")
        assert await engine.deliver(saga_id, "p\0y\ud800")
        await engine.deliver(saga_id, "pay")
        assert (await engine.wait(saga_id, WAIT)).state == "completed"


async def test_starting_twice_under_one_id_starts_one_saga_and_another_input_is_refused(backend: Backend) -> None:
    log = Log()
    async with backend([log.definition(saga(step("pay")))]) as engine:
        for _ in range(2):
            assert await engine.start("order", {"item": 7}, saga_id="event-1") == "event-1"
        await engine.wait("event-1", WAIT)
        await engine.start("order", {"item": 7}, saga_id="event-1")
        with pytest.raises(SagaConflictError, match="another name or input"):
            await engine.start("order", {"item": 8}, saga_id="event-1")
    assert log.done == ["pay"]


async def test_cancelling_a_wait_does_not_affect_the_saga(backend: Backend) -> None:
    log = Log()
    gate = asyncio.Event()

    async def wait_for_gate(_: StepContext) -> Any:
        await gate.wait()

    log.fails("ship", lambda: ValueError("no"))
    log.does("undo-pay", wait_for_gate)
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        saga_id = await engine.start("order")
        caller = asyncio.create_task(engine.wait(saga_id, WAIT))
        await eventually(lambda: _contains(log, "undo-pay"))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        gate.set()
        assert (await engine.wait(saga_id, WAIT)).state == "compensated"


async def _contains(log: Log, name: str) -> bool:
    return name in log.done


async def test_a_saga_can_be_compensated_by_hand(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    async with backend([log.definition(saga(step("reserve"), step("pay"), step("ship")))]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: is_in(engine, saga_id, "waiting"))
        await engine.compensate(saga_id, "the customer called")
        record = await engine.wait(saga_id, WAIT)
        assert (record.state, record.reason) == ("compensated", "the customer called")
        for refused in (engine.compensate(saga_id), engine.resume(saga_id), engine.abandon(saga_id, "no")):
            with pytest.raises(SagaConflictError, match="is compensated"):
                await refused
    assert log.done == ["reserve", "pay", "undo-pay", "undo-reserve"]


async def test_compensating_by_hand_also_compensates_the_running_step(backend: Backend) -> None:
    log = Log()
    log.hangs("pay")
    policy = saga(step("pay", attempt_timeout=Duration("20s"), timeout=Duration("50s")))
    async with (
        backend([log.definition(policy)], lease=1.0)
        if _takes_lease(backend)
        else backend([log.definition(policy)]) as engine
    ):
        saga_id = await engine.start("order")
        await eventually(lambda: _contains(log, "pay"))
        with pytest.raises(SagaConflictError, match="is running"):
            await engine.resume(saga_id)
        await engine.compensate(saga_id)
        record = await engine.wait(saga_id, WAIT)
    assert history(record)[2:] == ["compensating", "pay undoing", "pay undone", "compensated"]
    assert log.done == ["pay", "undo-pay"]


def _takes_lease(backend: Backend) -> bool:
    return "journal" in backend.__qualname__


async def test_an_abandoned_saga_runs_no_further_action_or_compensation(backend: Backend) -> None:
    log = Log()
    log.does("pay", _later)
    async with backend([log.definition(saga(step("pay")))]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: is_in(engine, saga_id, "waiting"))
        await engine.abandon(saga_id, "settled on the phone")
        record = await engine.wait(saga_id, WAIT)
    assert (record.state, record.reason) == ("abandoned", "settled on the phone")
    assert log.done == ["pay"]


async def test_a_saga_with_changed_steps_is_parked_until_the_old_steps_return(backend: Backend) -> None:
    before, after = Log(), Log()
    before.does("pay", _later)
    old, new = saga(step("pay"), step("ship")), saga(step("pay"), step("pack"), step("ship"))
    async with backend([before.definition(old)]) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: is_in(engine, saga_id, "waiting"))
    async with backend([after.definition(new)]) as engine:
        await engine.deliver(saga_id, "pay")
        record = await engine.wait(saga_id, WAIT)
        assert record.state == "parked"
        assert "the steps of order version 1 changed while the saga ran" in record.reason
        assert after.done == []
    async with backend([before.definition(old), after.definition(new.model_copy(update={"version": 2}))]) as engine:
        await engine.resume(saga_id)
        assert (await engine.wait(saga_id, WAIT)).state == "completed"
        fresh = await engine.wait(await engine.start("order"), WAIT)
    assert before.done == ["pay", "ship"]
    assert (fresh.version, after.done) == (2, ["pay", "pack", "ship"])


async def test_a_saga_of_a_newer_version_waits_for_a_newer_process(backend: Backend) -> None:
    first, second = Log(), Log()
    first.does("pay", _later)
    second.does("pay", _later)
    one, two = saga(step("pay"), step("ship")), saga(step("pay"), step("ship"), version=2)
    async with backend([first.definition(one), second.definition(two)]) as engine:
        newer = await engine.start("order")
        await eventually(lambda: is_in(engine, newer, "waiting"))
    async with backend([first.definition(one)]) as engine:
        older = await engine.start("order")
        await engine.deliver(newer, "pay")
        await eventually(lambda: is_in(engine, older, "waiting"))
        assert (await engine.show(newer)).state in {"waiting", "running"}
    async with backend([second.definition(two)]) as engine:
        assert (await engine.wait(newer, WAIT)).state == "completed"


async def test_a_saga_of_a_removed_version_is_parked(backend: Backend) -> None:
    first, second = Log(), Log()
    first.does("pay", _later)
    one, two = saga(step("pay"), step("ship")), saga(step("pay"), step("ship"), version=2)
    async with backend([first.definition(one)]) as engine:
        older = await engine.start("order")
        await eventually(lambda: is_in(engine, older, "waiting"))
    async with backend([second.definition(two)]) as engine:
        await engine.deliver(older, "pay")
        record = await engine.wait(older, WAIT)
    assert record.state == "parked"
    assert "began under order version 1, which the worker does not have (its versions: 2)" in record.reason


async def test_every_transition_is_an_event_and_counted(backend: Backend) -> None:
    log, recorder = Log(), Recorder()
    log.fails("ship", lambda: ValueError("no"))
    async with backend([log.definition(saga(step("pay"), step("ship")))], listeners=[recorder]) as engine:
        saga_id = await engine.start("order")
        record = await engine.wait(saga_id, WAIT)
    assert {event.target for event in recorder.events} == {f"order/{saga_id}"}
    assert [event.after.partition(":")[0] for event in recorder.events] == history(record)
    assert recorder.events[0].before == ""
    assert [event.before for event in recorder.events if event.after == "compensated"] == ["compensating"]
    assert "ship failed: ValueError: no" in [event.after for event in recorder.events]
    observation = engine.observation
    assert observation.executions["order", "pay", "action", "successful"] == 1
    assert observation.executions["order", "ship", "action", "failed"] == 1
    assert observation.executions["order", "pay", "compensation", "successful"] == 1
    assert observation.transitions["order", "compensated"] == 1
    assert observation.seconds["order", "pay", "action"] > 0


async def test_a_result_that_is_not_json_fails_the_step(backend: Backend) -> None:
    log = Log()

    async def set_of_things(_: StepContext) -> Any:
        return {1, 2}

    log.does("pay", set_of_things)
    async with backend([log.definition(saga(step("pay")))]) as engine:
        record = await engine.wait(await engine.start("order"), WAIT)
    assert record.state == "compensated"
    assert "the result of pay is not a JSON value" in record.reason


async def test_text_and_numbers_survive_the_journal(backend: Backend) -> None:
    log = Log()
    argument = {
        "text": "naïve \u0000 \U0001f600 'quoted' \\",
        "big": 2**53,
        "float": 0.1,
        "none": None,
        "list": [[], {}],
    }

    async def echo(context: StepContext) -> Any:
        return context.input

    log.does("pay", echo)
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        record = await engine.wait(await engine.start("order", argument), WAIT)
    assert record.input == argument
    assert log.contexts[1].results["pay"] == argument


async def test_max_retries_zero_means_one_attempt(backend: Backend) -> None:
    log = Log()
    log.fails("pay", lambda: CalleeError("bank"))
    policy = saga(step("pay", retry=Retry(max_retries=0, **QUICK)))
    async with backend([log.definition(policy)]) as engine:
        await engine.wait(await engine.start("order"), WAIT)
    assert log.done == ["pay", "undo-pay"]
