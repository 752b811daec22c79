"""Sagas on Temporal: its history is the journal, and actions are activities. Needs the extra `temporal`.

The workflow decides by the same `following` as the other engines. An activity makes one attempt; Temporal repeats it.
Backoffs have no jitter and retries no budget here, since Temporal offers neither.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from temporalio import activity
from temporalio.client import Client, WorkflowExecution, WorkflowUpdateFailedError
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from voice_runtime.events import Events, Listener
from voice_runtime.outcome import Classify, classify
from voice_runtime.retry import Retry
from voice_runtime.saga.context import Message, Reply, StepContext, to_json
from voice_runtime.saga.definition import Definition, Definitions
from voice_runtime.saga.errors import DefinitionMismatchError, SagaConflictError, UnknownSagaError
from voice_runtime.saga.execution import checked, reason_of
from voice_runtime.saga.observation import Observation, Tracing
from voice_runtime.saga.progress import Entry, EntryKind, State
from voice_runtime.saga.record import SagaRecord, SagaSummary
from voice_runtime.saga.temporal_workflow import (
    AHEAD,
    MISMATCH,
    OBSERVATIONS,
    PUBLISH,
    WORKFLOW,
    Attempt,
    Attempted,
    SagaWorkflow,
    beginning,
)
from voice_runtime.saga.transport import Transport
from voice_runtime.timeout import Timeout

logger = logging.getLogger("voice_runtime.saga")
COUNT_SECONDS = 10.0
"""Time between two counts of unfinished sagas."""
_PAUSE, _PAUSE_CAP = 0.02, 0.5


class TemporalEngine:
    """Runs sagas on the Temporal service that `client` is connected to; its worker polls `task_queue` while entered.

    `transport` sends what actions publish. Looking and intervening works without being entered; interventions are
    carried out by whichever worker runs the saga.
    """

    def __init__(  # noqa: PLR0913  # what a process decides, each with its default
        self,
        client: Client,
        definitions: Iterable[Definition] = (),
        *,
        task_queue: str = "sagas",
        transport: Transport | None = None,
        concurrency: int = 32,
        listeners: Sequence[Listener] = (),
        tracing: Tracing | None = None,
        classify: Classify = classify,
    ) -> None:
        self.observation = Observation(Events(listeners), tracing)
        self._client = client
        self._definitions = Definitions(definitions)
        self._task_queue = task_queue
        self._transport = transport
        self._concurrency = concurrency
        self._classify = classify
        self._worker: Worker | None = None
        self._counting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        names = {f"{definition.plan.name}.{name}" for definition in self._definitions for name in definition.actions}
        activities = [activity.defn(name=name)(self._activity()) for name in sorted(names)]
        OBSERVATIONS[self._task_queue] = self.observation
        self._worker = Worker(
            self._client,
            task_queue=self._task_queue,
            workflows=[SagaWorkflow],
            activities=[*activities, self._publish, _not_here],
            max_concurrent_activities=self._concurrency,
        )
        await self._worker.__aenter__()
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._counting is not None:
            self._counting.cancel()
        if self._worker is not None:
            await self._worker.__aexit__(kind, error, traceback)

    async def _count(self) -> None:
        while True:
            counted: dict[tuple[str, State], int] = {}
            try:
                async for found in self._client.list_workflows(
                    f"WorkflowType='{WORKFLOW}' AND ExecutionStatus='Running'"
                ):
                    memo = await found.memo()
                    key = memo["name"], memo["state"]
                    counted[key] = counted.get(key, 0) + 1
                self.observation.unfinished = counted
            except RPCError as error:
                logger.warning("Temporal: %s", error)
            await asyncio.sleep(COUNT_SECONDS)

    def _activity(self) -> Callable[[Attempt], Awaitable[Attempted]]:
        async def run(attempt: Attempt) -> Attempted:
            definition = self._pinned(attempt)
            context = StepContext(
                attempt.saga_id, attempt.name, attempt.step, attempt.branch, attempt.input, attempt.results,
                attempt.trace, attempt.caused_by,
            )  # fmt: skip
            result = await self._attempt(definition, context)
            messages = [asdict(message) for message in context.messages]
            return Attempted(None if result is Reply.LATER else result, result is Reply.LATER, messages)

        return run

    def _pinned(self, attempt: Attempt) -> Definition:
        try:
            return self._definitions.pinned(attempt.name, attempt.version, attempt.fingerprint)
        except DefinitionMismatchError as error:
            kind = AHEAD if self._definitions.is_ahead(attempt.name, attempt.version) else MISMATCH
            raise ApplicationError(str(error), type=kind, non_retryable=True) from None

    async def _attempt(self, definition: Definition, context: StepContext) -> Any:
        step = definition.steps[context.step]
        action = definition.actions[step.name] if context.branch == "action" else definition.compensation(step.name)
        timeout = Timeout(f"{context.saga}.{context.step}", step.attempt_timeout.seconds)
        try:
            with self.observation.execution(context):
                result = await timeout.call(checked(action), context)
                if context.messages and self._transport is None:
                    raise RuntimeError("it publishes, and this engine has no transport")  # noqa: TRY301  # as any failure
                return result
        except Exception as error:
            transient = Retry(step.name, step.retry).is_transient(self._classify(error))
            again = context.branch == "compensation" or transient
            raise ApplicationError(reason_of(error), type=type(error).__name__, non_retryable=not again) from error

    @activity.defn(name=PUBLISH)
    async def _publish(self, messages: list[dict[str, Any]]) -> None:
        assert self._transport is not None  # noqa: S101  # the step would have failed
        await self._transport.send([Message(**message) for message in messages])

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """See `Engine.start`."""
        definition = self._definitions.newest(name)
        to_json(argument, "the input")
        saga_id = saga_id or uuid.uuid4().hex
        begun = beginning(definition, argument, self.observation.tracing.current())
        memo = {"name": name, "version": begun.version, "state": "running", "input": {"value": argument}}
        try:
            await self._client.start_workflow(
                WORKFLOW,
                begun,
                id=saga_id,
                task_queue=self._task_queue,
                memo=memo,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            )
        except WorkflowAlreadyStartedError:
            there = await self.show(saga_id)
            if (there.name, to_json(there.input, "")) != (name, to_json(argument, "")):
                raise SagaConflictError(
                    f"saga {saga_id} is there already: a {there.name} with another input or name"
                ) from None
        return saga_id

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """See `Engine.wait`."""
        pause = _PAUSE
        async with asyncio.timeout(seconds):
            while not ((record := await self.show(saga_id)).ended or record.state == "parked"):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _PAUSE_CAP)
        return record

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """See `Engine.deliver`."""
        handle = self._client.get_workflow_handle(saga_id)
        arguments = [step, result, error, self.observation.tracing.current()]
        try:
            await handle.signal(SagaWorkflow.deliver, args=arguments)
        except RPCError as refused:
            if refused.status != RPCStatusCode.NOT_FOUND:
                raise
            return await self._is_known(saga_id)
        return True

    async def _is_known(self, saga_id: str) -> bool:
        try:
            await self.show(saga_id)
        except UnknownSagaError:
            return False
        return True

    async def show(self, saga_id: str) -> SagaRecord:
        """See `Engine.show`."""
        try:
            description = await self._client.get_workflow_handle(saga_id).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            raise UnknownSagaError(f"no saga {saga_id}") from None
        return await _record(description)

    async def list(
        self, *, state: State | None = None, name: str | None = None, limit: int = 100
    ) -> Sequence[SagaSummary]:
        """See `Engine.list`. Temporal's list follows what happens within about a second."""
        found: list[SagaSummary] = []
        async for execution in self._client.list_workflows(f"WorkflowType='{WORKFLOW}'"):
            record = await _record(execution)
            if record.state == (state or record.state) and record.name == (name or record.name):
                found.append(record)
            if len(found) == limit:
                break
        return found

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.resume`."""
        await self._intervene(saga_id, "resumed", reason)

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.compensate`. A step that is being executed counts as one whose outcome is unknown."""
        await self._intervene(saga_id, "compensating", reason)

    async def abandon(self, saga_id: str, reason: str) -> None:
        """See `Engine.abandon`."""
        await self._intervene(saga_id, "abandoned", reason)

    async def _intervene(self, saga_id: str, kind: EntryKind, reason: str) -> None:
        record = await self.show(saga_id)
        if record.ended:
            raise SagaConflictError(f"saga {saga_id} is {record.state}: it cannot be {kind} now")
        try:
            await self._client.get_workflow_handle(saga_id).execute_update(SagaWorkflow.intervene, args=[kind, reason])
        except WorkflowUpdateFailedError as error:
            raise SagaConflictError(f"saga {saga_id} {error.cause}") from None


@activity.defn(dynamic=True)
async def _not_here(_: Sequence[RawValue]) -> None:
    """An activity that no definition here names."""
    name = activity.info().activity_type
    raise ApplicationError(
        f"no definition here has {name}; deploy the one that the saga began under, then resume",
        type=MISMATCH,
        non_retryable=True,
    )


async def _record(execution: WorkflowExecution) -> SagaRecord:
    memo = await execution.memo()  # Temporal leaves empty values out
    entries = tuple(Entry(kind, step, data, at) for kind, step, data, at in memo.get("entries", ()))
    updated = entries[-1].at if entries else execution.start_time.timestamp()
    return SagaRecord(
        execution.id,
        memo["name"],
        memo["version"],
        memo["state"],
        memo.get("reason", ""),
        execution.start_time.timestamp(),
        updated,
        input=memo["input"]["value"],
        entries=entries,
    )
