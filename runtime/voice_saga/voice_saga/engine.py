"""The engine that keeps its sagas in a journal. Any process with access to the journal may show and change these sagas.

If the journal is in PostgreSQL, several processes may run the sagas. If it is in SQLite, only one process may.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from math import inf
from random import Random
from types import TracebackType
from typing import Any, Self

from voice_runtime import Classify, Events, Listener, classify

from voice_saga.arguments import check_at_least, check_seconds
from voice_saga.context import SAGA_BYTES, checked_id, checked_limit, checked_size, size_of, storable, to_json
from voice_saga.definition import Definition, Definitions
from voice_saga.driver import Driver
from voice_saga.errors import JournalUnavailableError, LeaseLostError, SagaConflictError, UnknownSagaError
from voice_saga.execution import Execution
from voice_saga.journal import Claim, Journal, Outcome
from voice_saga.observation import Observation, Tracing
from voice_saga.progress import Entry, EntryKind, Progress, State, following, refusal
from voice_saga.record import SagaRecord, SagaSummary

logger = logging.getLogger("voice_saga")
INTERVENTIONS_IN_TURN = 20
"""Maximum number of tries of one intervention. A try fails if another intervention seizes the saga meanwhile."""
INTERVENTION_WAIT = 0.05
"""Seconds. After failed try n an intervention waits a random time from 0 to (n - 1) × this value."""
POLL_CAP = 0.5
"""Longest time between two queries of `wait`, in seconds."""


class JournalEngine:
    """Runs sagas inside its `async with`. To only show sagas and intervene, use `open` and `close` instead.

    - `lease`: seconds. If a worker dies, another worker takes over its sagas after this time. A worker renews its
      leases three times in this time.
    - `poll_interval`: seconds between two searches for due sagas. If another process starts a saga or delivers an
      event, this engine notices it at the next search.
    - `concurrency`: maximum number of sagas that run at the same time.
    - `grace`: seconds that running steps get to finish when the `async with` ends.
    - `max_claims`: number of times that workers may claim a saga without a write to its journal. At the next claim the
      engine parks the saga, because its step probably kills the workers.

    Raises `ValueError` for a number out of range.
    """

    def __init__(  # noqa: PLR0913  # each argument is a choice of the process, and has a default
        self,
        journal: Journal,
        definitions: Iterable[Definition] = (),
        *,
        lease: float = 30.0,
        poll_interval: float = 0.5,
        concurrency: int = 32,
        grace: float = 10.0,
        max_claims: int = 10,
        listeners: Sequence[Listener] = (),
        tracing: Tracing | None = None,
        classify: Classify = classify,
        random: Random | None = None,
    ) -> None:
        check_at_least(1, "a saga engine", concurrency=concurrency, max_claims=max_claims)
        check_at_least(0, "a saga engine", grace=grace)
        check_seconds("a saga engine", lease=lease, poll_interval=poll_interval)
        self.journal = journal
        self._random = random or Random()  # noqa: S311  # spreads interventions; it protects no secret
        self.observation = Observation(Events(listeners), tracing)
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._definitions = Definitions(definitions)
        self._executions = {
            definition.plan: Execution(definition, self.observation, classify=classify, random=random)
            for definition in self._definitions
        }
        self._lease = lease
        self._poll_interval = poll_interval
        self._concurrency = concurrency
        self._grace = grace
        self._max_claims = max_claims
        self._driving: dict[str, tuple[Claim, Driver, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    async def open(self) -> None:
        """Connect to show and change sagas, without running any."""
        await self.journal.open(worker=False)

    async def close(self) -> None:
        """Disconnect."""
        await self.journal.close()

    async def __aenter__(self) -> Self:
        await self.journal.open(worker=True)
        self._stopping = False
        self._loops = [
            asyncio.create_task(self._repeat(self._claim_due, self._until_woken)),
            asyncio.create_task(self._repeat(self._renew, self._until_renewal)),
            asyncio.create_task(self._repeat(self._count, self._until_renewal)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        tasks = [task for _, _, task in self._driving.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._grace)
        for task in (*self._loops, *tasks):
            task.cancel()
        await asyncio.gather(*self._loops, *tasks, return_exceptions=True)
        with suppress(JournalUnavailableError):
            await self.journal.release(self.owner)
        await self.journal.close()

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
        """Repeat `work` until the engine stops. An error, such as an unreachable journal, does not end the loop."""
        while not self._stopping:
            try:
                await work()
            except JournalUnavailableError as error:
                logger.warning("%s", error)
            except Exception:
                logger.exception("internal error of the saga engine; the engine continues")
            await pause()

    async def _until_woken(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_interval):
                await self._wake.wait()
        self._wake.clear()

    async def _until_renewal(self) -> None:
        await asyncio.sleep(self._lease / 3)

    async def _claim_due(self) -> None:
        while not self._stopping and (free := self._concurrency - len(self._driving)) > 0:
            claims = await self.journal.claim(self.owner, free, self._lease)
            for claim in claims:
                self._drive(claim)
            if len(claims) < free:
                return

    async def _renew(self) -> None:
        driven = list(self._driving.values())
        held = await self.journal.renew([claim for claim, _, _ in driven], self._lease)
        for claim, driver, task in driven:
            if claim.id not in held and not driver.released:
                self.observation.leases_lost += 1
                task.cancel()  # the lease expired or was taken over; `voice_saga.barrier` prevents a second effect

    async def _count(self) -> None:
        self.observation.unfinished = await self.journal.unfinished()

    def _drive(self, claim: Claim) -> None:
        """Run a saga in a new context, because the saga outlives the request that started it."""
        driver = Driver(self.journal, claim, self.observation, self._max_claims, lambda: self._stopping)
        before = [self._driving[claim.id][2]] if claim.id in self._driving else []
        task = asyncio.create_task(self._driven(claim, driver, before), context=Context())
        self._driving[claim.id] = (claim, driver, task)

    async def _driven(self, claim: Claim, driver: Driver, before: Sequence[asyncio.Task[None]]) -> None:
        """Run the saga of a claim.

        First cancel `before`: the tasks of this worker for an earlier claim of the same saga.
        """
        try:
            for task in before:
                task.cancel()
            await asyncio.gather(*before, return_exceptions=True)
            await driver.drive(self._definitions, self._executions)
        except LeaseLostError as error:
            self.observation.leases_lost += 1
            logger.warning("%s", error)
        except JournalUnavailableError as error:
            logger.warning("saga %s: %s; a worker takes over the saga when the lease has expired", claim.id, error)
        except Exception:
            logger.exception(
                "saga %s: the engine failed; a worker takes over the saga when the lease has expired", claim.id
            )
        finally:
            if self._driving.get(claim.id, (None,))[0] is claim:
                del self._driving[claim.id]
            self._wake.set()

    async def start(self, name: str, argument: Any = None, *, saga_id: str | None = None) -> str:
        """See `Engine.start`. If this engine runs sagas and has a free slot, it runs the new saga immediately."""
        plan = self._definitions.newest(name).plan
        text = to_json(argument, "the input")
        checked_size(len(text), SAGA_BYTES, "the input")
        running = bool(self._loops) and not self._stopping and len(self._driving) < self._concurrency
        claim = Claim(
            id=uuid.uuid4().hex if saga_id is None else checked_id(saga_id),
            name=name,
            version=plan.version,
            fingerprint=plan.fingerprint,
            input=json.loads(text),
            trace=self.observation.tracing.current(),
            epoch=1,
            entries=[Entry("started"), *following(plan, Progress())],
        )
        if not await self.journal.start(claim, self.owner if running else None, self._lease):
            await self._refuse_another(claim)
            return claim.id
        self.observation.written(name, claim.id, claim.entries, "")
        if running:
            self._drive(claim)
        return claim.id

    async def _refuse_another(self, claim: Claim) -> None:
        there = await self.show(claim.id)
        if (there.name, to_json(there.input, "")) != (claim.name, to_json(claim.input, "")):
            raise SagaConflictError(
                f"saga {claim.id} exists already, with another name or input: its name is {there.name}"
            )

    async def wait(self, saga_id: str, seconds: float | None = None) -> SagaRecord:
        """See `Engine.wait`."""
        pause = 0.005
        async with asyncio.timeout(seconds):
            while not ((summary := await self._summary(saga_id)).ended or summary.state == "parked"):
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, POLL_CAP)
        return await self.show(saga_id)

    async def _summary(self, saga_id: str) -> SagaSummary:
        if (summary := await self.journal.summary(checked_id(saga_id))) is None:
            raise UnknownSagaError(f"no saga {saga_id}")
        return summary

    async def deliver(self, saga_id: str, step: str, result: Any = None, *, error: str | None = None) -> bool:
        """See `Engine.deliver`."""
        error = None if error is None else storable(error)
        checked_size(size_of(result, f"the outcome of {step}"), SAGA_BYTES, f"the outcome of {step}")
        outcome = Outcome(storable(step), result, error, self.observation.tracing.current())
        known = await self.journal.deliver(checked_id(saga_id), outcome)
        self._wake.set()
        return known

    async def show(self, saga_id: str) -> SagaRecord:
        """See `Engine.show`."""
        if (record := await self.journal.show(checked_id(saga_id))) is None:
            raise UnknownSagaError(f"no saga {saga_id}")
        return record

    async def list(
        self, *, state: State | None = None, name: str | None = None, limit: int = 100
    ) -> Sequence[SagaSummary]:
        """See `Engine.list`."""
        return await self.journal.list(state, name, checked_limit(limit))

    async def resume(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.resume`."""
        await self._intervene(saga_id, Entry("resumed", data=reason))

    async def compensate(self, saga_id: str, reason: str = "by hand") -> None:
        """See `Engine.compensate`. The result of a running step counts as unknown."""
        await self._intervene(saga_id, Entry("compensating", data=reason))

    async def abandon(self, saga_id: str, reason: str) -> None:
        """See `Engine.abandon`."""
        await self._intervene(saga_id, Entry("abandoned", data=reason))

    async def _intervene(self, saga_id: str, entry: Entry) -> None:
        """Intervene. If another intervention seizes the saga meanwhile, try again.

        The new state of the saga decides whether the intervention is still allowed.
        """
        for turn in range(INTERVENTIONS_IN_TURN):
            try:
                await self._intervene_once(saga_id, entry)
            except LeaseLostError as error:
                lost = error
            else:
                return
            # Without a random wait several interventions would seize the saga from each other before any can write.
            await asyncio.sleep(self._random.random() * INTERVENTION_WAIT * turn)
        raise lost

    async def _intervene_once(self, saga_id: str, entry: Entry) -> None:
        summary = await self._summary(saga_id)
        _check_allowed(saga_id, entry.kind, summary.state)
        entry = replace(entry, data=storable(entry.data))
        claim = await self.journal.seize(saga_id, self.owner, self._lease)
        assert claim is not None, saga_id  # noqa: S101  # it existed before, and engines never delete a saga
        progress = Progress.of(claim.entries)
        if refusal(entry.kind, progress.shown):
            await self.journal.append(claim, [], progress.shown, reason=progress.reason, release=_rest(progress))
        _check_allowed(saga_id, entry.kind, progress.shown)
        progress.apply(entry)
        await self.journal.append(claim, [entry], progress.shown, reason=progress.reason, release=_rest(progress))
        self.observation.written(claim.name, saga_id, [entry], summary.state)
        self._wake.set()


def _rest(progress: Progress) -> float:
    return inf if progress.state in {"completed", "compensated", "abandoned", "parked"} else 0.0


def _check_allowed(saga_id: str, kind: EntryKind, state: State) -> None:
    if reason := refusal(kind, state):
        raise SagaConflictError(f"saga {saga_id} {reason}")
