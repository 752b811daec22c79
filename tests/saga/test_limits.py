from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from voice_policies import Duration, Retry, Saga, SagaStep
from voice_saga import (
    Definition,
    Entry,
    JournalEngine,
    NotJsonError,
    Reply,
    SqliteJournal,
    StepContext,
    TooLargeError,
)
from voice_saga.context import SAGA_BYTES
from voice_saga.definition import Plan
from voice_saga.progress import Progress, following

from tests.saga.backends import Backend
from tests.saga.definitions import Log, saga, step


async def test_a_result_that_is_too_large_for_the_saga_fails_its_step(backend: Backend) -> None:
    log = Log()

    async def half(_: StepContext) -> str:
        return "x" * (SAGA_BYTES // 2)

    log.does("embed", half)
    log.does("store", half)
    async with backend([log.definition(saga(step("embed"), step("store")))]) as engine:
        record = await engine.wait(await engine.start("order", "the input"), 60)
    assert record.state == "compensated"
    assert record.reason.startswith("store: TooLargeError: the result of store with its messages takes 524290 bytes")
    assert "store the data elsewhere" in record.reason
    assert log.done.count("store") == 1, "a result that is too large is not retried"


async def test_steps_of_one_stage_share_the_remaining_bytes_equally(backend: Backend) -> None:
    log = Log()

    async def more_than_half(_: StepContext) -> str:
        return "x" * (SAGA_BYTES * 2 // 3)

    log.does("embed", more_than_half)
    async with backend([log.definition(saga(step("embed"), step("store", with_previous=True)))]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    assert record.state == "compensated"
    assert "TooLargeError" in record.reason


async def test_start_and_deliver_refuse_an_input_or_outcome_that_is_too_large(backend: Backend) -> None:
    log = Log()

    async def later(_: StepContext) -> Reply:
        return Reply.LATER

    log.does("pay", later)
    large = "x" * SAGA_BYTES
    async with backend([log.definition(saga(step("pay")))]) as engine:
        with pytest.raises(TooLargeError, match="the input takes 1048578 bytes of JSON; expected at most 1048576"):
            await engine.start("order", large)
        saga_id = await engine.start("order", "x" * 100)
        with pytest.raises(TooLargeError, match="the outcome of pay takes"):
            await engine.deliver(saga_id, "pay", large)
        await engine.deliver(saga_id, "pay", "x" * (SAGA_BYTES - 50))  # without the input the outcome would fit
        record = await engine.wait(saga_id, 60)
    assert record.state == "compensated"
    assert "pay: the outcome of pay takes" in record.reason


async def test_an_action_that_changes_its_input_or_results_does_not_affect_later_executions(backend: Backend) -> None:
    seen: list[tuple[Any, Any]] = []

    async def change(context: StepContext) -> list[str]:
        results = {name: context.results[name] for name in context.results}
        seen.append((list(context.input["items"]), {name: list(result) for name, result in results.items()}))
        context.input["items"].pop()
        for result in results.values():
            result.clear()
        if len(seen) == 1:
            raise ConnectionResetError("again")
        return [context.step]

    log = Log()
    log.does("pay", change)
    log.does("ship", change)
    async with backend([log.definition(saga(step("pay"), step("ship"), step("tell")))]) as engine:
        record = await engine.wait(await engine.start("order", {"items": ["a", "b"]}), 60)
    assert record.state == "completed"
    assert seen == [(["a", "b"], {}), (["a", "b"], {}), (["a", "b"], {"pay": ["pay"]})]
    (context,) = (context for context in log.contexts if context.step == "tell")
    assert dict(context.results) == {"pay": ["pay"], "ship": ["ship"]}


async def test_a_saga_keeps_copies_of_input_and_results(backend: Backend) -> None:
    """The caller of `start` and the actions may change their objects at any time."""
    log, started = Log(), asyncio.Event()
    given: dict[Any, Any] = {"items": ("a", "b"), 1: "one"}
    result: list[Any] = [(1, 2)]

    async def pay(_: StepContext) -> list[Any]:
        await started.wait()
        return result

    log.does("pay", pay)
    async with backend([log.definition(saga(step("pay"), step("ship")))]) as engine:
        saga_id = await engine.start("order", given)
        given.clear()
        started.set()
        record = await engine.wait(saga_id, 60)
    result.clear()
    shipped = log.contexts[-1]
    assert record.state == "completed"
    assert (shipped.input, dict(shipped.results)) == ({"items": ["a", "b"], "1": "one"}, {"pay": [[1, 2]]})


def test_a_published_payload_is_a_copy() -> None:
    context = StepContext("saga", "order", "pay", "action", None, {})
    payload: dict[str, Any] = {"lines": ("a", "b")}
    context.publish("order.paid", payload)
    payload.clear()
    assert [message.payload for message in context.messages] == [{"lines": ["a", "b"]}]
    with pytest.raises(NotJsonError, match=r"message order\.paid is not a JSON value"):
        context.publish("order.paid", object())


async def test_a_step_gets_no_result_of_its_own_stage(backend: Backend) -> None:
    """Otherwise scheduling and crashes would decide which results a step gets."""
    log, first_is_over = Log(), asyncio.Event()

    async def first(_: StepContext) -> str:
        first_is_over.set()
        return "first"

    async def second(context: StepContext) -> list[str]:
        await first_is_over.wait()
        await asyncio.sleep(0.1)
        return list(context.results)

    log.does("first", first)
    log.does("second", second)
    stages = saga(step("before"), step("first"), step("second", with_previous=True))
    async with backend([log.definition(stages)]) as engine:
        record = await engine.wait(await engine.start("order"), 60)
    (result,) = (entry.data for entry in record.entries if (entry.kind, entry.step) == ("succeeded", "second"))
    assert result == ["before"]


def processor_seconds(count: int, *, fails: bool) -> float:
    names = tuple(f"s-{number}" for number in range(count))
    plan, progress = Plan("bulk", 1, tuple((name,) for name in names), frozenset(names)), Progress()
    begun = time.process_time()
    while due := following(plan, progress):
        for entry in due:
            progress.apply(entry)
        if progress.running:
            (name,) = progress.running
            progress.apply(Entry("failed" if fails and name == names[-1] else "succeeded", name))
        elif progress.undoing:
            progress.apply(Entry("undone", progress.undoing))
    assert progress.state == ("compensated" if fails else "completed")
    return time.process_time() - begun


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "compensated"])
def test_the_cost_of_a_step_does_not_grow_with_the_length_of_the_saga(fails: bool) -> None:
    """If each step looked at all other steps, sixteen times the steps would take 256 times as long."""
    short = min(processor_seconds(1000, fails=fails) for _ in range(3))
    assert processor_seconds(16_000, fails=fails) < 64 * short


async def test_a_saga_of_thousands_of_steps_is_undone_in_reverse_order(tmp_path: Path) -> None:
    count, undone = 2_000, []

    async def act(context: StepContext) -> int:
        if context.step == f"s-{count - 1}":
            raise ValueError("the last one fails")
        return len(context.step)

    async def undo(context: StepContext) -> None:
        undone.append(context.step)

    second = Duration("1s")
    steps = tuple(
        SagaStep(
            name=f"s-{n}", compensation=f"undo-{n}", timeout=second, attempt_timeout=second, retry=Retry(max_retries=0)
        )
        for n in range(count)
    )
    actions = {f"s-{n}": act for n in range(count)} | {f"undo-{n}": undo for n in range(count)}
    definition = Definition(Saga(name="bulk", timeout=Duration("10d"), steps=steps), actions)
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition], lease=1000) as engine:
        record = await engine.wait(await engine.start("bulk"), 300)
    assert record.state == "compensated"
    assert undone == [f"s-{n}" for n in reversed(range(count))]
