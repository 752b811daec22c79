"""The workflow that runs any saga on Temporal. Its input contains the saga's plan, so all sagas share the code."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from voice_policies import Retry

from voice_saga.context import SAGA_BYTES, Branch, Results, size_of
from voice_saga.definition import Definition, Plan
from voice_saga.driver import HANDOVER, LOOK_AGAIN
from voice_saga.observation import Observation
from voice_saga.progress import ENDED, Entry, EntryKind, Progress, ended, following, refusal

WORKFLOW = "voice-saga"
PUBLISH = "voice-saga.publish"
MISMATCH, AHEAD = "DefinitionMismatchError", "DefinitionAhead"
"""Error types of a worker without the saga's definition. `AHEAD`: only a newer worker has the definition."""
STOPPED = "WorkerStopped"
"""Error type of an attempt whose worker was stopped. That attempt does not count. The error's detail is the number of
earlier attempts of the same activity."""
WORKER_DEATH_MARGIN = 1.0
"""Seconds after an attempt's timeout at which Temporal considers the worker dead."""
MEMO_REASON = 1000
"""Longest reason in the memo, in characters. Temporal's server warns of a memo above 2 KiB (`limit.memoSize.warn`)."""
OBSERVATIONS: WeakValueDictionary[str, Observation] = WeakValueDictionary()
"""The observations of this process, by task queue. A workflow reports its entries to the one of its task queue."""


@dataclass
class StepTimes:
    """The names of a step's activities, and the timeouts and retries of the step. Times are in seconds."""

    activity: str
    compensation: str
    timeout: float
    attempt_timeout: float
    retry: dict[str, Any]
    compensation_retry: dict[str, Any]


@dataclass
class Beginning:
    """The input of a workflow: the plan, which stays the same while the saga runs, and the saga's own input."""

    name: str
    version: int
    fingerprint: str
    stages: list[list[str]]
    compensated: list[str]
    timeout: float
    steps: dict[str, StepTimes]
    input: Any
    trace: str = ""

    def plan(self) -> Plan:
        """The plan of the saga."""
        stages = tuple(tuple(stage) for stage in self.stages)
        return Plan(self.name, self.version, stages, frozenset(self.compensated))


@dataclass
class Attempt:
    """The input of an activity."""

    saga_id: str
    name: str
    version: int
    fingerprint: str
    step: str
    branch: Branch
    input: Any
    results: dict[str, Any]
    trace: str = ""
    caused_by: str = ""


@dataclass
class Attempted:
    """The result of an activity."""

    result: Any = None
    later: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)


def beginning(definition: Definition, argument: Any, trace: str) -> Beginning:
    """The input of the workflow for a definition."""
    plan = definition.plan
    steps = {
        step.name: StepTimes(
            f"{plan.name}.{step.name}",
            f"{plan.name}.{step.compensation}",
            step.timeout.seconds,
            step.attempt_timeout.seconds,
            _retry(step.retry),
            _retry(step.compensation_retry),
        )
        for step in definition.policy.steps
    }
    timeout = definition.policy.timeout.seconds
    stages = [list(stage) for stage in plan.stages]
    compensated = sorted(plan.compensated)
    return Beginning(plan.name, plan.version, plan.fingerprint, stages, compensated, timeout, steps, argument, trace)


def _retry(policy: Retry) -> dict[str, Any]:
    return {
        "initial": max(policy.base_delay.seconds, 0.001),
        "coefficient": policy.multiplier,
        "maximum": max(policy.max_delay.seconds, 0.001),
        "attempts": policy.max_attempts,
    }


@workflow.defn(name=WORKFLOW, sandboxed=False)
class SagaWorkflow:
    """One saga. The memo contains the saga's state, so `list` needs no worker. The query `journal` needs a worker."""

    @workflow.init
    def __init__(self, begun: Beginning) -> None:
        self._begun = begun
        self._plan = begun.plan()
        self._progress = Progress()
        self._entries: list[Entry] = []
        self._outcomes: dict[str, tuple[Any, str | None, str]] = {}
        self._interrupted = False
        self._caused_by = ""
        self._input_size = size_of(begun.input, "the input")

    @workflow.run
    async def run(self, begun: Beginning) -> str:
        """Run until the saga has ended. Returns its final state."""
        self._deadline = workflow.now() + timedelta(seconds=begun.timeout)
        self._write([Entry("started")])
        while self._progress.state not in ENDED:
            self._interrupted = False
            work = asyncio.ensure_future(self._work())
            await workflow.wait_condition(lambda: work.done() or self._interrupted)  # noqa: B023  # the lambda is used only in this turn of the loop
            if not work.done():
                work.cancel()
            await asyncio.gather(work, return_exceptions=self._interrupted)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._progress.state

    @workflow.signal
    def deliver(self, step: str, result: Any, error: str | None, trace: str) -> None:
        """Store the outcome of a step. The first outcome counts."""
        self._outcomes.setdefault(step, (result, error, trace))

    @workflow.query
    def journal(self) -> tuple[Any, list[tuple[EntryKind, str, Any, float]]]:
        """The input, and kind, step, data and time of every transition."""
        return self._begun.input, [(entry.kind, entry.step, entry.data, entry.at) for entry in self._entries]

    @workflow.update
    def intervene(self, kind: EntryKind, reason: str) -> None:
        """Resume, compensate or abandon the saga. `kind` is the kind of the journal entry to write."""
        if refused := refusal(kind, self._progress.shown):
            raise ApplicationError(refused, type="Conflict")
        self._interrupted = True
        self._write([Entry(kind, data=reason)])

    def _write(self, entries: Sequence[Entry]) -> None:
        progress, now = self._progress, workflow.now().timestamp()
        before = progress.shown if self._entries else ""
        written: list[Entry] = []
        due: Sequence[Entry] = entries
        while due:
            stamped = [replace(entry, at=now) for entry in due]
            written += stamped
            for entry in stamped:
                progress.apply(entry)
            due = following(self._plan, progress)
        self._entries += written
        memo = {"state": progress.shown, "reason": progress.reason[:MEMO_REASON], "updated_at": now}
        workflow.upsert_memo(memo)
        observation = OBSERVATIONS.get(workflow.info().task_queue)
        if observation is not None and not workflow.unsafe.is_replaying():
            observation.written(self._begun.name, workflow.info().workflow_id, written, before)

    async def _work(self) -> None:
        """Run the actions or the compensation that are next in the current state, or wait."""
        progress = self._progress
        if progress.state == "parked":
            await workflow.wait_condition(lambda: self._interrupted)
        elif progress.state == "compensating":
            await self._undo(progress.undoing)
        elif progress.running:
            await asyncio.gather(*(self._act(step) for step in progress.running))
        else:
            await self._take_outcomes()

    async def _act(self, step: str) -> None:
        try:
            attempted = await self._execute(step, "action")
        except ActivityError as error:
            self._failed(step, error)
            return
        except TimeoutError as error:
            self._write([Entry("failed", step, f"TimeoutError: {error}")])
            return
        await self._publish(attempted)
        self._write([Entry("waiting", step) if attempted.later else Entry("succeeded", step, attempted.result)])

    def _failed(self, step: str, error: ActivityError) -> None:
        if self._interrupted:
            return  # cancelled by an intervention
        if _type(error) in {MISMATCH, AHEAD}:
            self._write([Entry("parked", data=_reason(error))])
        else:
            self._write([Entry("failed", step, _reason(error))])

    async def _undo(self, step: str) -> None:
        try:
            attempted = await self._execute(step, "compensation")
        except ActivityError as error:
            if not self._interrupted:
                mismatch = _type(error) in {MISMATCH, AHEAD}
                reason = _reason(error) if mismatch else f"compensation_failed: {step}: {_reason(error)}"
                self._write([Entry("parked", data=reason)])
            return
        await self._publish(attempted)
        self._write([Entry("undone", step)])

    async def _take_outcomes(self) -> None:
        """Wait for the first outcome, or until a waiting step or the saga times out."""
        waiting = self._progress.waiting
        over = {
            step: datetime.fromtimestamp(entry.at, UTC) + timedelta(seconds=self._begun.steps[step].timeout)
            for step, entry in waiting.items()
        }
        patience = min([*over.values(), self._deadline]) - workflow.now()
        try:
            await workflow.wait_condition(lambda: bool({*waiting} & {*self._outcomes}), timeout=patience)
        except TimeoutError:
            late = [step for step, end in over.items() if min(end, self._deadline) <= workflow.now()]
            self._write([Entry("failed", step, "no outcome was delivered in time") for step in late])
            return
        entries = []
        for step in [step for step in waiting if step in self._outcomes]:
            result, error, self._caused_by = self._outcomes[step]
            left = SAGA_BYTES - self._input_size - self._progress.size
            entries.append(ended(step, result, error, left // len(self._plan.siblings[step])))
        self._write(entries)

    def _remaining(self) -> timedelta:
        """The time until the saga's timeout. Raises `TimeoutError` if none is left.

        Temporal ends an activity up to a second late. So an action that begins after the timeout could succeed.
        """
        left = self._deadline - workflow.now()
        if left <= timedelta():
            raise TimeoutError(f"the saga's timeout of {self._begun.timeout:g} s has passed")
        return max(left, timedelta(milliseconds=1))

    async def _publish(self, attempted: Attempted) -> None:
        """Send messages in a separate activity, which Temporal retries until they are sent."""
        if attempted.messages:
            await workflow.execute_activity(PUBLISH, attempted.messages, start_to_close_timeout=timedelta(seconds=30))

    async def _execute(self, step: str, branch: Branch) -> Attempted:
        """Run the activity. Run it again if its worker was stopped.

        Run it again, for at most `HANDOVER` seconds, if its worker knows only older versions of the saga. Raises
        `ActivityError` if the activity fails, and `TimeoutError` if no time is left for an action.
        """
        begun, times = self._begun, self._begun.steps[step]
        retry = times.retry if branch == "action" else times.compensation_retry
        hidden = self._plan.siblings[step] if branch == "action" else ()
        attempts = retry["attempts"]
        patience = workflow.now() + timedelta(seconds=HANDOVER)
        while True:
            try:
                attempted: Attempted = await workflow.execute_activity(
                    times.activity if branch == "action" else times.compensation,
                    Attempt(
                        workflow.info().workflow_id, begun.name, begun.version, begun.fingerprint, step, branch,
                        begun.input, dict(Results(self._progress.results, hidden)), begun.trace, self._caused_by,
                    ),
                    result_type=Attempted,
                    schedule_to_close_timeout=self._remaining() if branch == "action" else None,
                    start_to_close_timeout=timedelta(seconds=times.attempt_timeout + WORKER_DEATH_MARGIN),
                    retry_policy=RetryPolicy(
                        initial_interval=timedelta(seconds=retry["initial"]),
                        backoff_coefficient=retry["coefficient"],
                        maximum_interval=timedelta(seconds=max(retry["initial"], retry["maximum"])),
                        maximum_attempts=attempts,
                    ),
                )  # fmt: skip
                return attempted  # noqa: TRY300  # an `else` would only indent it
            except ActivityError as error:
                if isinstance(error.cause, ApplicationError) and error.cause.type == STOPPED:
                    attempts -= error.cause.details[0]
                    continue
                if _type(error) != AHEAD or workflow.now() > patience:
                    raise
            await asyncio.sleep(LOOK_AGAIN)


def _type(error: ActivityError) -> str | None:
    return error.cause.type if isinstance(error.cause, ApplicationError) else None


def _reason(error: ActivityError) -> str:
    """The text of the activity's error, or of Temporal's error if Temporal ended the activity."""
    return error.cause.message if isinstance(error.cause, ApplicationError) else f"{error.cause or error}"
