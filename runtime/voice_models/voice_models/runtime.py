"""The model runtime: the state that all model calls of one process share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from opentelemetry.trace import Span
from voice_policies import ModelHedge, Models, OutboundCall
from voice_runtime import (
    Caller,
    RetryBudget,
    Runtime,
    SharedStore,
    Timeout,
    UnknownCallError,
    current_request,
    remaining,
)
from voice_runtime.log_rate import LogRate, since_previous

from voice_models.attempt import ModelAttempt
from voice_models.call import NEVER, ModelCall
from voice_models.candidate import Candidate, candidates_of
from voice_models.cooldown import Cooldowns
from voice_models.request import ModelRequest
from voice_models.response_cache import ResponseCache
from voice_models.statistics import CallKind, ModelStatistics, boundaries, per_token
from voice_models.telemetry import begin_span, end_span
from voice_models.token_budget import BudgetExceededError, TokenBudgets, claims_of
from voice_models.usage import ModelAttempted, UsageSink
from voice_models.usage_stream import append, store_of_usage

NOBODY = Caller()
logger = logging.getLogger("voice_models")


class ModelRuntime:
    """Cooldowns, budgets, cache and counts that all model calls of a process share. A reload of the bundle keeps them.

    Budgets, the cache and usage events reach their stores with outbound calls of the bundle. `stores` maps the name of
    such a call to its store. If a budget has no store here, it behaves as if its store were unreachable. `sinks`
    get one event for each attempt.
    """

    def __init__(
        self, runtime: Runtime, *, stores: Mapping[str, SharedStore] | None = None, sinks: Iterable[UsageSink] = ()
    ) -> None:
        self.runtime = runtime
        self.cooldowns = Cooldowns(runtime.clock, runtime.events)
        self.statistics = ModelStatistics(boundaries(runtime.bundle.models))
        self._stores = stores or {}
        self.budgets = TokenBudgets(runtime, self._stores)
        self.cache = ResponseCache(runtime, self._stores)
        self._sinks = tuple(sinks)
        self._sink_errors = LogRate()
        self._background: set[asyncio.Task[None]] = set()
        self._idle: dict[float, Timeout] = {}
        self._hedges: dict[str, RetryBudget] = {}
        self._known: tuple[Models, dict[str, tuple[Candidate, ...]]] | None = None

    def declared(self, name: str) -> tuple[OutboundCall, Models, str]:
        """The declared call `name`, the models of the bundle, and the call's route. Raises `UnknownCallError`."""
        assembled = self.runtime.assembled
        full_name = assembled.call(name).name
        models = assembled.bundle.models
        for call in assembled.bundle.outbound:
            if call.name == full_name and call.route is not None and models is not None:
                return call, models, call.route
        routed = [call.name for call in assembled.bundle.outbound if call.route is not None]
        raise UnknownCallError("model call", name, routed)

    def candidates(self, models: Models, route: str) -> tuple[Candidate, ...]:
        """The candidates of a route of `models`."""
        known = self._known  # another thread may replace it after a reload
        if known is None or known[0] is not models:
            self._known = known = models, {name: candidates_of(models, name) for name in models.routes}
        return known[1][route]

    # --- a call

    def begin(self, name: str, models: Models, route: str, request: ModelRequest) -> ModelCall:
        """Begin the outbound call `name` on a route of `models`, under the deadline of the current request."""
        runtime = self.runtime
        left = remaining()
        return ModelCall(
            route_name=route,
            route=models.routes[route],
            request=request,
            candidates={
                each.name: (each, runtime.outbound(name, each.name)) for each in self.candidates(models, route)
            },
            cooldowns=self.cooldowns,
            clock=runtime.clock,
            random=runtime.random,
            target=name,
            deadline=NEVER if left is None else runtime.clock.monotonic() + left,
        )

    async def reserve(self, call: ModelCall, attempt: ModelAttempt, models: Models, tenant: str) -> Span | None:
        """Reserve the tokens of an attempt. Returns its span, or `None` if its deployment's budgets have no room.

        Raises `ModelRefusedError` if the tenant's budgets have no room.
        """
        candidate = attempt.candidate
        claims = [
            *claims_of(call.route.budgets, models.budgets, tenant),
            *claims_of(candidate.deployment.budgets, models.budgets, candidate.name),
        ]
        try:
            total = call.route.timeout.total.seconds
            attempt.reserved(await self.budgets.reserve(claims, call.request.reserved_tokens, total))
            span = begin_span(call.route_name, call.route, attempt)
        except BudgetExceededError as error:
            call.budget_refused(attempt, error)
            return None
        except BaseException:
            attempt.cancelled()
            await self.budgets.settle(attempt.reservation, 0)
            raise
        call.begun(attempt)
        return span

    def idle(self, call: ModelCall) -> Timeout:
        """The idle limit of a route.

        All calls with an equal limit share one `Timeout`, so that one timer of the event loop serves them all.
        """
        seconds = call.route.timeout.idle.seconds
        if seconds not in self._idle:
            self._idle[seconds] = Timeout("model_route", seconds, self.runtime.clock)
        return self._idle[seconds]

    def hedges(self, call: ModelCall, hedge: ModelHedge) -> RetryBudget:
        """The budget of a route's hedged requests. A reload keeps it."""
        budget = self._hedges.get(call.route_name)
        if budget is None:
            budget = self._hedges[call.route_name] = RetryBudget(hedge.budget, self.runtime.clock)
        budget.reconfigure(hedge.budget)
        return budget

    async def settle(self, attempt: ModelAttempt, span: Span, tenant: str) -> None:
        """Settle an ended attempt once: its budgets, usage event, counts and span."""
        event = attempt.settled(tenant)
        if event is None:
            return
        try:
            self.statistics.record(event, attempt.request.form.operation)
            self._report(event)
            self.in_background(self._append(event))
            end_span(span, event, attempt.captured_answer)  # last, because a span processor may raise an error
        finally:
            await self.budgets.settle(attempt.reservation, attempt.used_tokens)

    def ended(self, call: ModelCall, kind: CallKind, event: ModelAttempted | None = None) -> None:
        """Count an ended call. `event` is the event of the attempt whose answer the caller got.

        A cached answer has no event. It meets every objective.
        """
        self.statistics.calls[call.route_name, kind] += 1
        self.statistics.fallbacks[call.route_name] += call.has_fallen_back
        if kind == "successful" and (event is None or self._meets_objective(call, event)):
            self.statistics.good_calls[call.route_name] += 1

    def _meets_objective(self, call: ModelCall, event: ModelAttempted) -> bool:
        objective = call.route.objective
        if event.first_token is None:
            return False
        if objective is None:
            return True
        waited = self.runtime.clock.monotonic() - call.started - event.duration + event.first_token
        limit = objective.per_token.seconds
        return waited <= objective.first_token.seconds and (not limit or per_token(event) <= limit)

    def _report(self, event: ModelAttempted) -> None:
        for sink in self._sinks:
            try:
                sink.on_attempt(event)
            except Exception:
                if (omitted := self._sink_errors.admit()) is not None:
                    logger.exception("a usage sink raised an error%s", since_previous(omitted))

    # --- background work

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task, so that it continues even if its caller is cancelled."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def drain(self) -> None:
        """Wait for this loop's unfinished writes of usage events and cached answers. Call it before the loop ends."""
        loop = asyncio.get_running_loop()
        while pending := [task for task in self._background if task.get_loop() is loop]:
            await asyncio.gather(*pending, return_exceptions=True)

    async def _append(self, event: ModelAttempted) -> None:
        found = store_of_usage(self.runtime, self._stores)
        if found is None:
            return
        call, store = found
        try:
            await append(self.runtime, store, call, event)
        except Exception:  # noqa: BLE001  # the call is soft: the request goes on without the event
            self.statistics.usage_events_dropped += 1


def caller() -> Caller:
    """The caller of the current request."""
    request = current_request()
    return NOBODY if request is None else request.caller
