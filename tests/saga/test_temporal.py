from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecution, WorkflowHandle
from temporalio.worker import Worker
from voice_policies import Duration
from voice_saga import JournalUnavailableError, Reply, SagaConflictError, StepContext, UnknownSagaError
from voice_saga.temporal import TemporalEngine

from tests.saga.definitions import Log, eventually, saga, step

WAIT = 60


@workflow.defn(name="another", sandboxed=False)
class Another:
    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(3600)


async def hang(_: StepContext) -> None:
    await asyncio.sleep(600)


async def _is_listed_as_abandoned(engine: TemporalEngine, saga_id: str) -> bool:
    return any(found.id == saga_id for found in await engine.list(state="abandoned"))


@pytest.mark.parametrize("end", ["terminate", "cancel"])
async def test_a_saga_whose_workflow_was_ended_from_outside_is_abandoned(temporal: str, end: str) -> None:
    log = Log()
    log.does("pay", hang)
    client = await Client.connect(temporal)
    queue = f"ended-{end}"
    async with TemporalEngine(client, [log.definition(saga(step("pay")))], task_queue=queue, grace=0.1) as engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _has_begun(log))
        handle: WorkflowHandle[object, object] = client.get_workflow_handle(saga_id)
        await (handle.terminate() if end == "terminate" else handle.cancel())
        record = await engine.wait(saga_id, WAIT)
        ended = "TERMINATED" if end == "terminate" else "CANCELED"
        assert (record.state, record.reason) == ("abandoned", f"its workflow was ended from outside, as {ended}")
        assert record.updated_at > record.started_at
        with pytest.raises(SagaConflictError, match="is abandoned"):
            await engine.compensate(saga_id)
        assert await engine.deliver(saga_id, "pay") is True
        await eventually(lambda: _is_listed_as_abandoned(engine, saga_id))


async def test_an_intervention_reports_that_no_worker_answers(temporal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voice_saga.temporal.ANSWER_SECONDS", 0.5)
    engine, saga_id = await _without_worker(temporal, "no-worker")
    with pytest.raises(JournalUnavailableError, match=r"no worker answers within 0\.5 s"):
        await engine.compensate(saga_id)


async def test_an_intervention_can_be_cancelled(temporal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, saga_id = await _without_worker(temporal, "cancelled")
    intervene, began = WorkflowHandle.execute_update, asyncio.Event()

    async def execute_update(*args: Any, **kwargs: Any) -> Any:
        began.set()
        return await intervene(*args, **kwargs)

    monkeypatch.setattr(WorkflowHandle, "execute_update", execute_update)
    intervening = asyncio.create_task(engine.compensate(saga_id))
    await began.wait()
    intervening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await intervening


async def test_an_intervention_in_a_saga_that_ends_meanwhile_is_refused(
    temporal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, saga_id = await _without_worker(temporal, "ends-meanwhile")
    handle: WorkflowHandle[object, object] = (await Client.connect(temporal)).get_workflow_handle(saga_id)
    look, ends = TemporalEngine._describe, [handle.terminate]  # noqa: SLF001  # the saga ends between `_describe` and the intervention

    async def describe(self: TemporalEngine, of: str) -> WorkflowExecution:
        found = await look(self, of)
        if ends:
            await ends.pop()()
        return found

    monkeypatch.setattr(TemporalEngine, "_describe", describe)
    with pytest.raises(SagaConflictError, match="is abandoned"):
        await engine.compensate(saga_id)


async def test_no_step_begins_after_the_sagas_timeout_has_passed_without_a_worker(temporal: str) -> None:
    log, client = Log(), await Client.connect(temporal)

    async def later(_: StepContext) -> Reply:
        return Reply.LATER

    log.does("pay", later)
    times: Any = {"attempt_timeout": Duration("500ms"), "timeout": Duration("500ms"), "retries": 0}
    policy = saga(step("pay", **times), step("ship", **times), timeout="1s")
    engine = TemporalEngine(client, [log.definition(policy)], task_queue="late", grace=0.1)
    async with engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _has_begun(log))
    await engine.deliver(saga_id, "pay")
    await asyncio.sleep(1)
    async with engine:
        record = await engine.wait(saga_id, WAIT)
    assert record.state == "compensated"
    assert "ship" not in log.done


async def test_a_missing_namespace_is_an_unusable_journal(temporal: str) -> None:
    engine = TemporalEngine(await Client.connect(temporal, namespace="missing"), [Log().definition(saga(step("pay")))])
    for call in (engine.start("order"), engine.list()):
        with pytest.raises(JournalUnavailableError, match="Namespace missing is not found"):
            await call


async def _without_worker(temporal: str, queue: str) -> tuple[TemporalEngine, str]:
    """An engine with a running saga. No worker runs any longer."""
    log = Log()
    log.does("pay", hang)
    client = await Client.connect(temporal)
    engine = TemporalEngine(client, [log.definition(saga(step("pay")))], task_queue=queue, grace=0.1)
    async with engine:
        saga_id = await engine.start("order")
        await eventually(lambda: _has_begun(log))
    return engine, saga_id


async def _has_begun(log: Log) -> bool:
    return log.done == ["pay"]


async def test_the_error_for_a_workflow_of_another_type_names_that_type(temporal: str) -> None:
    log = Log()
    client = await Client.connect(temporal)
    async with Worker(client, task_queue="another", workflows=[Another]):
        handle = await client.start_workflow(Another.run, id="taken", task_queue="another")
        async with TemporalEngine(client, [log.definition(saga(step("pay")))], task_queue="no-saga") as engine:
            with pytest.raises(UnknownSagaError, match="no saga 'taken': in Temporal this id belongs to a"):
                await engine.show("taken")
            with pytest.raises(SagaConflictError, match="in Temporal this id belongs to a workflow of type 'another'"):
                await engine.start("order", saga_id="taken")
        await handle.terminate()
