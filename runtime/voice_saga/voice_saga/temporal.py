"""Sagas on Temporal: its history is the journal, and actions are activities. Needs the extra `temporal`.

The workflow uses the same function `following` as `JournalEngine`. An activity makes one attempt, and Temporal
repeats the activity. On this engine backoffs have no jitter and retries have no budget, because Temporal offers
neither.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker
from voice_runtime import Classify, Events, Listener, Retry, Timeout, classify

from voice_saga.arguments import check_at_least
from voice_saga.cancellation import end_if_cancelled
from voice_saga.context import (
    SAGA_BYTES,
    Message,
    Reply,
    StepContext,
    checked_id,
    checked_limit,
    checked_size,
    size_of,
    storable,
    to_json,
)
from voice_saga.definition import Definition, Definitions
from voice_saga.errors import (
    DefinitionMismatchError,
    JournalUnavailableError,
    SagaConflictError,
    UnknownSagaError,
)
from voice_saga.execution import checked, reason_of
from voice_saga.observation import Observation, Tracing
from voice_saga.progress import Entry, EntryKind, State, refusal
from voice_saga.record import SagaRecord, SagaSummary
from voice_saga.temporal_workflow import (
    AHEAD,
    MISMATCH,
    OBSERVATIONS,
    PUBLISH,
    STOPPED,
    WORKFLOW,
    Attempt,
    Attempted,
    SagaWorkflow,
    beginning,
)
from voice_saga.transport import Transport

__all__ = ["TemporalEngine"]

logger = logging.getLogger("voice_saga")
COUNT_SECONDS = 10.0
"""Seconds between two counts of unfinished sagas."""
ANSWER_SECONDS = 30.0
"""Longest wait in seconds for a worker's answer to a query or intervention."""
BY_THE_ENGINE = {WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED}
"""Statuses of a workflow that the engine itself produces. Any other status means that the workflow was ended from
outside, for example terminated."""
_PAUSE, _PAUSE_CAP = 0.02, 0.5


class TemporalEngine:
    """Runs sagas on the Temporal service of `client`. Inside its `async with` a worker polls `task_queue`.

    `transport` sends the messages that actions publish. `grace`: seconds that running steps get to finish when
    the `async with` ends. Outside the `async with` all methods work, but another worker must run the sagas, answer
    `show` and carry out interventions. Raises `ValueError` for a number out of range.
    """

    def __init__(  # noqa: PLR0913  # each argument is a choice of the process, and has a default
        self,
        client: Client,
        definitions: Iterable[Definition] = (),
        *,
        task_queue: str = "sagas",
        transport: Transport | None = None,
        concurrency: int = 32,
        grace: float = 10.0,
        listeners: Sequence[Listener] = (),
        tracing: Tracing | None = None,
        classify: Classify = classify,
    ) -> None:
        check_at_least(1, "a saga engine", concurrency=concurrency)
        check_at_least(0, "a saga engine", grace=grace)
        self.observation = Observation(Events(listeners), tracing)
        self._client = client
        self._definitions = Definitions(definitions)
        self._task_queue = task_queue
        self._transport = transport
        self._concurrency = concurrency
        self._grace = grace
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
            activities=[*activities, self._publish, _unknown_activity],
            max_concurrent_activities=self._concurrency,
            graceful_shutdown_timeout=timedelta(seconds=self._grace),
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
            try:
                result = await self._attempt(definition, context)
            except asyncio.CancelledError:
                if not activity.is_worker_shutdown():
                    raise
                made = activity.info().attempt - 1
                raise ApplicationError("the worker stopped", made, type=STOPPED, non_retryable=True) from None
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
        kept = size_of(context.input, "the input") + size_of(context.results, "the results")
        room = (SAGA_BYTES - kept) // len(definition.plan.siblings[step.name])
        try:
            with self.observation.execution(context):
                result = await timeout.call(
                    checked(action, room if context.branch == "action" else SAGA_BYTES), context
                )
                if context.messages and self._transport is None:
                    raise RuntimeError("the step publishes an event, but TemporalEngine got no transport")  # noqa: TRY301  # handled like any failure
                return result
        except Exception as error:
            transient = Retry(step.name, step.retry).is_transient(self._classify(error))
            again = context.branch == "compensation" or transient
            logger.info("saga %s: %s failed", context.saga_id, context.step, exc_info=True)
            # `from None`, because the text of a cause may contain characters that Temporal cannot send.
            raise ApplicationError(reason_of(error), type=type(error).__name__, non_retryable=not again) from None

    @activity.defn(name=PUBLISH)
    async def _publish(self, messages: list[dict[str, Any]]) -> None:
        assert self._transport is not None  # noqa: S101  # without a transport the step would have failed
        await self._transport.send([Message(**message) for message in messages])

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """See `Engine.start`."""
        definition = self._definitions.newest(name)
        text = to_json(argument, "the input")
        checked_size(len(text), SAGA_BYTES, "the input")
        saga_id = uuid.uuid4().hex if saga_id is None else checked_id(saga_id)
        begun = beginning(definition, json.loads(text), self.observation.tracing.current())
        memo = {
            "name": name,
            "version": begun.version,
            "state": "running",
            "input": hashlib.sha256(text.encode()).hexdigest(),
        }
        try:
            with _reached():
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
            await self._refuse_another(saga_id, memo)
        return saga_id

    async def _refuse_another(self, saga_id: str, memo: dict[str, Any]) -> None:
        try:
            there = await (await self._describe(saga_id)).memo()
        except UnknownSagaError as error:
            raise SagaConflictError(str(error)) from None
        if (there["name"], there["input"]) != (memo["name"], memo["input"]):
            raise SagaConflictError(
                f"saga {saga_id} exists already, with another name or input: its name is {there['name']}"
            )

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """See `Engine.wait`."""
        pause = _PAUSE
        async with asyncio.timeout(seconds):
            while not ((summary := await self._summary(saga_id)).ended or summary.state == "parked"):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _PAUSE_CAP)
        return await self.show(saga_id)

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """See `Engine.deliver`."""
        text = to_json(result, f"the outcome of {step}")
        checked_size(len(text), SAGA_BYTES, f"the outcome of {step}")
        handle = self._client.get_workflow_handle(checked_id(saga_id))
        arguments = [
            storable(step),
            json.loads(text),
            None if error is None else storable(error),
            self.observation.tracing.current(),
        ]
        try:
            with _reached(RPCStatusCode.NOT_FOUND):
                await handle.signal(SagaWorkflow.deliver, args=arguments)
        except RPCError:  # the saga has ended, or there is no such saga
            return await self._is_known(saga_id)
        return True

    async def _is_known(self, saga_id: str) -> bool:
        try:
            await self._describe(saga_id)
        except UnknownSagaError:
            return False
        return True

    async def _describe(self, saga_id: str) -> WorkflowExecution:
        try:
            with _reached(RPCStatusCode.NOT_FOUND):
                execution = await self._client.get_workflow_handle(checked_id(saga_id)).describe()
        except RPCError:
            raise UnknownSagaError(f"no saga {saga_id}") from None
        if execution.workflow_type != WORKFLOW:
            raise UnknownSagaError(
                f"no saga {saga_id!r}: in Temporal this id belongs to a workflow of type {execution.workflow_type!r}"
            )
        return execution

    async def _summary(self, saga_id: str) -> SagaSummary:
        return await _summary(await self._describe(saga_id))

    async def show(self, saga_id: str) -> SagaRecord:
        """See `Engine.show`. Raises `JournalUnavailableError` if no worker answers with the journal."""
        summary = await self._summary(saga_id)
        handle = self._client.get_workflow_handle_for(SagaWorkflow.run, saga_id)
        with _reached():
            begun, journal = await handle.query(SagaWorkflow.journal, rpc_timeout=timedelta(seconds=ANSWER_SECONDS))
        entries = tuple(Entry(kind, step, data, at) for kind, step, data, at in journal)
        return SagaRecord(**asdict(summary), input=begun, entries=entries)

    async def list(
        self, *, state: State | None = None, name: str | None = None, limit: int = 100
    ) -> Sequence[SagaSummary]:
        """See `Engine.list`. Temporal's list lags by about a second."""
        most, found = checked_limit(limit), list[SagaSummary]()
        with _reached():
            async for execution in self._client.list_workflows(f"WorkflowType='{WORKFLOW}'"):
                summary = await _summary(execution)
                if state in {None, summary.state} and name in {None, summary.name}:
                    found.append(summary)
                if len(found) == most:
                    break
        return found

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.resume`."""
        await self._intervene(saga_id, "resumed", reason)

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.compensate`. The result of a running step counts as unknown."""
        await self._intervene(saga_id, "compensating", reason)

    async def abandon(self, saga_id: str, reason: str) -> None:
        """See `Engine.abandon`."""
        await self._intervene(saga_id, "abandoned", reason)

    async def _intervene(self, saga_id: str, kind: EntryKind, reason: str) -> None:
        summary = await self._summary(saga_id)
        if not summary.ended:
            handle, arguments = self._client.get_workflow_handle(saga_id), [kind, reason]
            try:
                with _reached(RPCStatusCode.NOT_FOUND):
                    # `rpc_timeout` limits one request, and the client repeats the request until a worker answers.
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await handle.execute_update(SagaWorkflow.intervene, args=arguments)
            except WorkflowUpdateFailedError as error:
                raise SagaConflictError(f"saga {saga_id} {error.cause}") from None
            except RPCError:
                summary = await self._summary(saga_id)  # the saga has ended since the first look
            else:
                return
        raise SagaConflictError(f"saga {saga_id} {refusal(kind, summary.state)}")


@activity.defn(dynamic=True)
async def _unknown_activity(_: Sequence[RawValue]) -> None:
    """Answer for every activity that no definition of this process has: fail with an error that says what to do."""
    name = activity.info().activity_type
    raise ApplicationError(
        f"the worker has no action {name}; deploy the definition under which the saga began, then resume the saga",
        type=MISMATCH,
        non_retryable=True,
    )


async def _summary(execution: WorkflowExecution) -> SagaSummary:
    memo = await execution.memo()  # Temporal omits empty values
    started = execution.start_time.timestamp()
    state, reason, updated = memo["state"], memo.get("reason", ""), memo.get("updated_at", started)
    if execution.status not in BY_THE_ENGINE and execution.status is not None:
        state, reason = "abandoned", f"its workflow was ended from outside, as {execution.status.name}"
        updated = execution.close_time.timestamp() if execution.close_time else updated
    return SagaSummary(execution.id, memo["name"], memo["version"], state, reason, started, updated)


@contextmanager
def _reached(*unconverted: RPCStatusCode) -> Iterator[None]:
    """Convert the errors of Temporal's client into the engines' errors, except those with a status in `unconverted`."""
    try:
        yield
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        end_if_cancelled()  # Temporal's client converts a cancellation into its own error
        raise JournalUnavailableError(f"Temporal: no worker answers within {ANSWER_SECONDS:g} s") from error
    except RPCError as error:
        if error.status in unconverted:
            raise
        raise JournalUnavailableError(f"Temporal: {error.message}") from error
