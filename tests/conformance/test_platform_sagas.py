from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from voice_policies import Saga, SagaStep
from voice_runtime import Runtime
from voice_saga import Action, Definition, JournalEngine, SqliteJournal, StepContext

from tests.bundles import mount
from tests.platforms import platform

(BUNDLE,) = (each.bundle for each in platform("prod").microservices if each.name == "indexing-service")
CASES = [(saga, step.name) for saga in BUNDLE.sagas for step in saga.steps]


class Callees:
    """The step `failing` fails after its effects.

    `_deleted` is true from the deletion of the document's objects until their restoration. Compensations restore all
    other data from the objects.
    """

    def __init__(self, runtime: Runtime, failing: str) -> None:
        self._runtime = runtime
        self._failing = failing
        self._deleted = False
        self.called: list[tuple[str, str]] = []

    def actions(self, saga: Saga) -> dict[str, Action]:
        return {
            name: self._action(name, calls)
            for step in saga.steps
            for name, calls in ((step.name, step.calls), (step.compensation or "", step.compensation_calls))
            if name
        }

    def _action(self, name: str, calls: tuple[str, ...]) -> Action:
        async def act(_: StepContext) -> None:
            for call in calls:
                await self._runtime.outbound(call).call(self._take, name, call)
            if name == self._failing:
                raise ValueError("the answer could not be read")

        return act

    async def _take(self, name: str, call: str) -> None:
        self.called.append((name, call))
        if (name, call) == ("delete-objects", "object-storage.delete"):
            self._deleted = True
        elif call == "object-storage.restore:undo":
            self._deleted = False
        elif call == "object-storage.read:undo" and self._deleted:
            raise LookupError("the objects are gone")


def made(steps: list[SagaStep]) -> list[tuple[str, str]]:
    return [(step.name, call) for step in steps for call in step.calls]


def undone(steps: list[SagaStep]) -> list[tuple[str, str]]:
    return [(step.compensation, call) for step in steps if step.compensation for call in step.compensation_calls]


@pytest.mark.parametrize(("saga", "failing"), CASES, ids=[f"{saga.name}: {failing}" for saga, failing in CASES])
async def test_a_failed_step_compensates_its_stage_and_all_earlier_stages(
    saga: Saga, failing: str, tmp_path: Path
) -> None:
    callees = Callees(Runtime.load(mount(tmp_path, BUNDLE)), failing)
    definition = Definition(saga, callees.actions(saga))
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition]) as engine:
        record = await engine.wait(await engine.start(saga.name, {"document": "42"}), 30)
    last = next(number for number, stage in enumerate(saga.stages) if failing in {step.name for step in stage})
    ran = [step for stage in saga.stages[: last + 1] for step in stage]
    assert (record.state, record.reason) == ("compensated", f"{failing}: ValueError: the answer could not be read")
    actions, compensations = callees.called[: len(made(ran))], callees.called[len(made(ran)) :]
    assert sorted(actions) == sorted(made(ran)), "the steps of one stage may run in any order"
    assert compensations == undone(ran[::-1])


@pytest.mark.parametrize("saga", BUNDLE.sagas, ids=[saga.name for saga in BUNDLE.sagas])
async def test_every_saga_of_the_platform_completes(saga: Saga, tmp_path: Path) -> None:
    callees: Any = Callees(Runtime.load(mount(tmp_path, BUNDLE)), "nothing")
    definition = Definition(saga, callees.actions(saga))
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [definition]) as engine:
        record = await engine.wait(await engine.start(saga.name, {"document": "42"}), 30)
    assert record.state == "completed"
    assert sorted(callees.called) == sorted(made(list(saga.steps)))
