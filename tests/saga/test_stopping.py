from __future__ import annotations

import asyncio
from typing import Any

import pytest
from voice_policies import Retry
from voice_runtime import CalleeError
from voice_saga import JournalEngine, StepContext

from tests.saga.backends import JOURNALS, Backend
from tests.saga.definitions import QUICK, Log, saga, step

WAIT = 60


class Interrupted:
    """An action that hangs until its worker stops. After `times` executions it succeeds."""

    def __init__(self, times: int, raises: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self._times = times
        self._raises = raises

    async def __call__(self, _: StepContext) -> str:
        self._times -= 1
        if self._times < 0:
            return "done"
        self.begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if self._raises is not None:
                raise self._raises from None  # like a driver whose connection is cut
            raise
        return "never"


async def stopped_again_and_again(backend: Backend, log: Log, policy: Any, action: Interrupted, times: int) -> Any:
    options = {"grace": 0.05}
    async with backend([log.definition(policy)], **options) as engine:
        saga_id = await engine.start("order")
        await asyncio.wait_for(action.begun.wait(), WAIT)
    for _ in range(times - 1):
        action.begun.clear()
        async with backend([log.definition(policy)], **options):
            await asyncio.wait_for(action.begun.wait(), WAIT)
    async with backend([log.definition(policy)], **options) as engine:
        return await engine.wait(saga_id, WAIT)


@pytest.mark.parametrize(
    "raises",
    [None, CalleeError("bank"), ValueError("the connection is closed")],
    ids=["the cancellation", "a transient error", "a permanent error"],
)
async def test_a_step_interrupted_by_deploys_runs_again_and_succeeds(
    backend: Backend, raises: Exception | None
) -> None:
    log, action = Log(), Interrupted(3, raises)
    log.does("pay", action)
    policy = saga(step("pay", retry=Retry(max_retries=0, **QUICK)), step("ship"))
    record = await stopped_again_and_again(backend, log, policy, action, 3)
    assert (record.state, record.reason) == ("completed", "")
    assert log.done == ["pay"] * 4 + ["ship"]


async def test_a_compensation_interrupted_by_deploys_runs_again_and_succeeds(backend: Backend) -> None:
    log, action = Log(), Interrupted(2, ValueError("the connection is closed"))
    log.does("undo-pay", action)
    log.fails("ship", lambda: ValueError("no"))
    none = Retry(max_retries=0, **QUICK)
    policy = saga(step("pay", compensation_retry=none), step("ship"))
    record = await stopped_again_and_again(backend, log, policy, action, 2)
    assert record.state == "compensated"


async def test_failed_attempts_before_a_stop_count_only_in_temporal(backend: Backend) -> None:
    """Temporal stores the number of attempts. An engine with a journal counts from zero at each claim."""
    log, failed, begun = Log(), [0], asyncio.Event()

    async def fail_then_hang(_: StepContext) -> None:
        failed[0] += 1
        if failed[0] == 2:
            begun.set()
            await asyncio.sleep(60)
        raise CalleeError("bank")

    log.does("pay", fail_then_hang)
    policy = saga(step("pay", retry=Retry(max_retries=2, **QUICK)))
    async with backend([log.definition(policy)], grace=0.05) as engine:
        saga_id = await engine.start("order")
        await asyncio.wait_for(begun.wait(), WAIT)
    async with backend([log.definition(policy)], grace=0.05) as engine:
        record = await engine.wait(saga_id, WAIT)
    assert record.state == "compensated"
    attempts = failed[0] - 1  # without the attempt that was interrupted
    assert attempts == (1 + 3 if isinstance(engine, JournalEngine) else 3)


@pytest.mark.parametrize("backend", JOURNALS, indirect=True)
async def test_a_saga_is_not_parked_after_thirty_deploys(backend: Backend) -> None:
    log, action = Log(), Interrupted(30)
    log.does("pay", action)
    record = await stopped_again_and_again(backend, log, saga(step("pay")), action, 30)
    assert record.state == "completed"
