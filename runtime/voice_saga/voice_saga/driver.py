"""Runs a saga that a worker has claimed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf

from voice_saga.context import SAGA_BYTES, Branch, Message, Reply, Results, StepContext, size_of
from voice_saga.definition import Definitions, Plan
from voice_saga.errors import DefinitionMismatchError
from voice_saga.execution import Execution, reason_of
from voice_saga.journal import Claim, Journal
from voice_saga.observation import Observation
from voice_saga.progress import ENDED, Entry, Progress, ended, following

logger = logging.getLogger("voice_saga")
HANDOVER = 600.0
"""Seconds for which a worker waits until a newer process takes a saga whose version the worker does not know. Then the
worker parks the saga."""
LOOK_AGAIN = 2.0
"""Seconds after which a worker checks again a saga that it left to newer processes."""


class Driver:
    """Runs the saga of one claim. Each write names the claim's epoch, so a driver that lost its lease cannot write."""

    def __init__(
        self, journal: Journal, claim: Claim, observation: Observation, max_claims: int, stopping: Callable[[], bool]
    ) -> None:
        self._journal = journal
        self._claim = claim
        self._observation = observation
        self._max_claims = max_claims
        self._stopping = stopping
        self._progress = Progress.of(claim.entries)
        self._begun = time.monotonic() - claim.age
        self.released = False
        """True after this worker has released the saga. From then on, another worker may run the saga."""
        self._state = self._progress.shown
        self._caused_by = ""
        self._input_size = size_of(claim.input, "the input")

    async def drive(self, definitions: Definitions, executions: Mapping[Plan, Execution]) -> None:
        """Run until the saga ends, is parked, waits or is left to newer processes, or until the worker stops.

        Raises `LeaseLostError` if the claim is no longer valid.
        """
        claim = self._claim
        if self._progress.state in ENDED or self._progress.state == "parked":
            await self._write([])  # an intervention seized the saga, but died before it released the saga
            return
        if definitions.is_ahead(claim.name, claim.version) and self._left_for() < HANDOVER:
            seen = claim.entries[-1].kind == "left"
            await self._write([] if seen else [Entry("left")], release=LOOK_AGAIN)
            return
        try:
            definition = definitions.pinned(claim.name, claim.version, claim.fingerprint)
        except DefinitionMismatchError as mismatch:
            await self._write([Entry("parked", data=str(mismatch))])
            return
        if claim.claims > self._max_claims:
            doing = ", ".join(self._progress.running) or self._progress.undoing
            reason = f"workers claimed the saga {claim.claims} times without completing {doing or 'its next step'}"
            await self._write([Entry("parked", data=reason)])
            return
        await self._go_on(executions[definition.plan])

    def _left_for(self) -> float:
        """Seconds since a worker left the saga to newer workers; 0 if the last entry of the journal is another."""
        last = self._claim.entries[-1]
        return last.age if last.kind == "left" else 0.0

    async def _go_on(self, execution: Execution) -> None:
        progress = self._progress
        if following(execution.definition.plan, progress):
            await self._write([], plan=execution.definition.plan)
        while not self.released:
            if progress.state == "compensating":
                await self._undo(execution)
            elif progress.running:
                await self._act(execution)
            else:
                await self._take_outcomes(execution)

    async def _write(
        self,
        entries: Sequence[Entry],
        messages: Sequence[Message] = (),
        *,
        plan: Plan | None = None,
        release: float | None = None,
    ) -> None:
        """Write the entries. With a plan, also write the saga's next entries, such as the begin of the next stage.

        Release the saga if it ended, if it is parked, or if the worker stops. Release any other saga only if `release`
        is given: the number of seconds after which a worker may claim the saga again.
        """
        progress = self._progress
        written = list(entries)
        for entry in entries:
            progress.apply(entry)
        if plan is not None and (after := following(plan, progress)):
            written += after
            for entry in after:
                progress.apply(entry)
        if progress.state in ENDED or progress.state == "parked":
            release = inf
        elif self._stopping():
            release = 0.0
        self.released = release is not None
        state = progress.shown
        await self._journal.append(
            self._claim, written, state, reason=progress.reason, messages=messages, release=release
        )
        self._observation.written(self._claim.name, self._claim.id, written, self._state)
        self._state = state

    async def _act(self, execution: Execution) -> None:
        """Execute the steps that have begun. Write the entry of each step as soon as the step ends."""
        plan, steps = execution.definition.plan, self._progress.running
        if len(steps) == 1:
            await self._write(*await self._attempt(execution, steps[0]), plan=plan)
            return
        tasks = {asyncio.create_task(self._attempt(execution, step)) for step in steps}
        try:
            while tasks and not self.released:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                outcomes = [task.result() for task in done]
                entries = [entry for written, _ in outcomes for entry in written]
                messages = [message for _, sent in outcomes for message in sent]
                await self._write(entries, messages, plan=plan)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attempt(self, execution: Execution, step: str) -> tuple[list[Entry], Sequence[Message]]:
        context = self._context(step, "action", execution.definition.plan.siblings[step])
        try:
            result = await execution.act(context, self._remaining(execution), self._room(execution, step))
        except Exception as error:  # after any error the saga is compensated
            logger.info("saga %s: %s failed", self._claim.id, step, exc_info=True)
            return [Entry("failed", step, reason_of(error))], ()
        if result is Reply.LATER:
            return [Entry("waiting", step)], context.messages
        return [Entry("succeeded", step, result)], context.messages

    async def _undo(self, execution: Execution) -> None:
        context = self._context(self._progress.undoing, "compensation")
        try:
            await execution.undo(context, SAGA_BYTES)
        except Exception as error:  # after any error the saga is parked
            logger.exception("saga %s: the compensation of %s failed", self._claim.id, context.step)
            reason = f"compensation_failed: {context.step}: {reason_of(error)}"
            await self._write([Entry("parked", data=reason)])
        else:
            entries = [Entry("undone", context.step)]
            await self._write(entries, context.messages, plan=execution.definition.plan)

    async def _take_outcomes(self, execution: Execution) -> None:
        """Write delivered outcomes, and fail steps whose outcome is overdue. Else release the saga until a timeout."""
        delivered = await self._journal.outcomes(self._claim)
        entries, patience = [], self._remaining(execution)
        for step, waiting in self._progress.waiting.items():
            left = execution.definition.steps[step].timeout.seconds - waiting.age
            if (outcome := delivered.get(step)) is not None:
                self._caused_by = outcome.trace
                entries.append(ended(step, outcome.result, outcome.error, self._room(execution, step)))
            elif min(left, self._remaining(execution)) <= 0:
                entries.append(Entry("failed", step, "no outcome was delivered in time"))
            patience = min(patience, left)
        if entries:
            await self._write(entries, plan=execution.definition.plan)
        else:
            await self._write([], release=max(patience, 0.0))

    def _remaining(self, execution: Execution) -> float:
        """Seconds left until the timeout of the whole saga."""
        return self._begun + execution.definition.policy.timeout.seconds - time.monotonic()

    def _room(self, execution: Execution, step: str) -> int:
        """Maximum size of the step's result in bytes: the bytes that the saga has left ÷ the steps of the stage."""
        left = SAGA_BYTES - self._input_size - self._progress.size
        return left // len(execution.definition.plan.siblings[step])

    def _context(self, step: str, branch: Branch, hidden: Sequence[str] = ()) -> StepContext:
        claim = self._claim
        results = Results(self._progress.results, hidden)
        return StepContext(claim.id, claim.name, step, branch, claim.input, results, claim.trace, self._caused_by)
