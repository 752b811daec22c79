"""An outbound call with its policies, outermost first.

    fallback → overall deadline → retry (with budget) → bulkhead → circuit breaker → attempt timeout → call

`Attempt` decides and counts; the shells here (`call`, `call_sync`, `stream`, `once`) only wait, each in its own way.
`call` is one coroutine around the callee's, bound to its strategies when the bundle is loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from copy import copy
from inspect import isasyncgen, isawaitable
from itertools import islice
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from voice_runtime.attempt import Attempt
from voice_runtime.bulkhead import Bulkhead
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import NEVER, SYSTEM_CLOCK, Clock
from voice_runtime.errors import BulkheadFullError, VoiceRuntimeError
from voice_runtime.events import Event, Events
from voice_runtime.fault_injection import FaultInjection
from voice_runtime.outcome import Classify, ClassifyResult, FailedResultError, classify
from voice_runtime.retry import Retry
from voice_runtime.statistics import CallStatistics
from voice_runtime.timeout import CURRENT, TimedScope, Timeout, Timer
from voice_runtime.worker_threads import OutOfTimeError, WorkerThreads

P = ParamSpec("P")
T = TypeVar("T")
Fallback = Callable[[Exception], Any]
"""Makes the result of a soft call that failed; may be asynchronous for asynchronous calls."""


class Outbound:
    """One declared call. Strategies that are `None` are not enforced here."""

    __slots__ = (
        "_unlimited",
        "breaker",
        "bulkhead",
        "classify",
        "classify_result",
        "clock",
        "events",
        "fallback",
        "fault_injection",
        "name",
        "now",
        "overall",
        "retry",
        "statistics",
        "timer",
        "workers",
    )

    def __init__(  # noqa: PLR0913  # the strategies of one call, each by its name
        self,
        name: str,
        *,
        attempt_timeout: float = NEVER,
        overall_timeout: float = NEVER,
        retry: Retry | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        bulkhead: Bulkhead | None = None,
        fallback: Fallback | None = None,
        fault_injection: FaultInjection | None = None,
        classify: Classify = classify,
        classify_result: ClassifyResult | None = None,
        clock: Clock = SYSTEM_CLOCK,
        events: Events | None = None,
        statistics: CallStatistics | None = None,
        workers: WorkerThreads | None = None,
    ) -> None:
        self.name = name
        self.timer = Timer(attempt_timeout, clock)
        self.overall = overall_timeout
        self._unlimited = Timeout(name, NEVER, clock)
        self.retry = retry
        self.breaker = circuit_breaker
        self.bulkhead = bulkhead
        self.fallback = fallback
        self.fault_injection = fault_injection
        self.classify = classify
        self.classify_result = classify_result
        self.clock = clock
        self.now = clock.monotonic
        self.events = events or Events()
        self.statistics = statistics or CallStatistics()
        self.workers = workers or WorkerThreads()

    async def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `fn(...)` under every policy but the fallback."""
        now = self.now()
        parent = CURRENT.get()
        limit = self._begin(parent, now)
        bulkhead = self.bulkhead
        number = 1
        while True:
            if bulkhead is not None and not bulkhead.try_enter():
                now = await self._queue(bulkhead, limit)
            attempt = Attempt(self, parent, limit, now, number)
            try:
                attempt.admit()
                with attempt:
                    result: Any = fn(*args, **kwargs)
                    if type(result) is CoroutineType or isawaitable(result):
                        result = await result
                    else:
                        _refuse_async(self.name, result)
                    if self.classify_result is not None:
                        self._check(result)
            except BaseException as error:
                delay = attempt.failed(error, args)
                if delay is None:
                    if type(error) is FailedResultError:
                        return error.result  # type: ignore[return-value]  # what fn's awaitable gave
                    raise
            else:
                attempt.succeeded()
                return result  # type: ignore[no-any-return]  # likewise
            finally:
                if bulkhead is not None:
                    bulkhead.leave()
            await asyncio.sleep(delay)
            now = self.now()
            number += 1

    def call_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(...)` under every policy but the fallback. Where time is limited it runs on a worker thread."""
        now = self.now()
        parent = CURRENT.get()
        limit = self._begin(parent, now)
        bulkhead = self.bulkhead
        number = 1
        while True:
            if bulkhead is not None and not bulkhead.try_enter():
                now = self._queue_sync(bulkhead, limit)
            attempt = Attempt(self, parent, limit, now, number)
            try:
                attempt.admit()
                result = self._run_sync(attempt, lambda: fn(*args, **kwargs))
                if self.classify_result is not None:
                    self._check(result)
            except BaseException as error:
                delay = attempt.failed(error, args)
                if delay is None:
                    if type(error) is FailedResultError:
                        return error.result  # type: ignore[return-value]  # what fn returned
                    raise
            else:
                attempt.succeeded()
                return result  # type: ignore[no-any-return]  # likewise
            finally:
                if bulkhead is not None:
                    bulkhead.leave()
            self.clock.sleep(delay)
            now = self.now()
            number += 1

    async def stream(
        self, fn: Callable[P, AsyncIterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T, None]:
        """Yield the messages of `fn(...)`.

        It succeeds at its end, and is attempted again only before its first message; an early `aclose` is neutral. The
        attempt timeout covers the first message, the deadline every wait.
        """
        now = self.now()
        parent = CURRENT.get()
        limit = self._begin(parent, now)
        number = 1
        while True:
            if self.bulkhead is not None and not self.bulkhead.try_enter():
                now = await self._queue(self.bulkhead, limit)
            attempt = Attempt(self, parent, limit, now, number)
            try:
                attempt.admit()
                async for message in self._messages(attempt, lambda: fn(*args, **kwargs)):
                    yield message
                attempt.succeeded()
            except BaseException as error:
                delay = attempt.failed(error, args)
                if delay is None:
                    raise
            else:
                return
            finally:
                if self.bulkhead is not None:
                    self.bulkhead.leave()
            await asyncio.sleep(delay)
            now = self.now()
            number += 1

    def stream_sync(self, fn: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """As `stream`, for code without an event loop.

        The first message comes from a worker thread; after it nothing interrupts the wait, so what `fn` makes must keep
        to the deadline by itself.
        """
        now = self.now()
        parent = CURRENT.get()
        limit = self._begin(parent, now)
        number = 1
        while True:
            if self.bulkhead is not None and not self.bulkhead.try_enter():
                now = self._queue_sync(self.bulkhead, limit)
            attempt = Attempt(self, parent, limit, now, number)
            try:
                attempt.admit()
                begun, messages = self._run_sync(attempt, lambda: _begun(fn(*args, **kwargs)))
                attempt.answered = self.now()
                yield from begun
                yield from messages
                attempt.succeeded()
            except BaseException as error:
                delay = attempt.failed(error, args)
                if delay is None:
                    raise
            else:
                return
            finally:
                if self.bulkhead is not None:
                    self.bulkhead.leave()
            self.clock.sleep(delay)
            now = self.now()
            number += 1

    @asynccontextmanager
    async def once(self) -> AsyncIterator[TimedScope]:
        """A block as one attempt: every policy but retry and fallback, since a block cannot be repeated."""
        now = self.now()
        parent = CURRENT.get()
        limit = self._begin(parent, now)
        if self.bulkhead is not None and not self.bulkhead.try_enter():
            now = await self._queue(self.bulkhead, limit)
        attempt = Attempt(self, parent, limit, now, 1)
        try:
            attempt.admit()
            with attempt:
                yield attempt
            attempt.succeeded()
        except BaseException as error:
            attempt.failed(error, repeatable=False)
            raise
        finally:
            if self.bulkhead is not None:
                self.bulkhead.leave()

    def unrepeated(self) -> Outbound:
        """The same call, with its breaker, bulkhead and counts, made once: for what counts each attempt."""
        unrepeated = copy(self)
        unrepeated.retry = None
        return unrepeated

    def entry(self) -> Callable[..., Awaitable[Any]]:
        """`enter`, or `call` itself where nothing stands around it."""
        return self.call if self.fault_injection is None and self.fallback is None else self.enter

    def enter(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await `fn(...)` under every policy: `call`, with injected faults inside and the fallback outside."""
        if self.fault_injection is not None:
            fn = self.fault_injection.around(self.name, fn)
        return self.call(fn, *args, **kwargs) if self.fallback is None else self._call_soft(fn, *args, **kwargs)

    def enter_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `enter`, on `call_sync`."""
        if self.fault_injection is not None:
            fn = self.fault_injection.around_sync(self.name, fn)
        try:
            return self.call_sync(fn, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # raised again unless the fallback stands in
            return self._fall_back(error)  # type: ignore[no-any-return]  # the fallback stands in for fn

    async def _call_soft(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self.call(fn, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # raised again unless the fallback stands in
            result = self._fall_back(error)
            return await result if isawaitable(result) else result  # type: ignore[no-any-return]  # likewise

    def _begin(self, parent: TimedScope | None, now: float) -> float:
        """Count the call; the moment at which it must have ended."""
        if self.retry is not None:
            calls = self.retry.budget.calls
            if now >= calls.end:
                calls.rotate(now)
            calls.count += 1
        limit = now + self.overall
        return limit if parent is None or limit < parent.expires else parent.expires

    async def _queue(self, bulkhead: Bulkhead, limit: float) -> float:
        try:
            await bulkhead.enter(limit - self.now())
        except BulkheadFullError as error:
            self._rejected(error)
            raise
        return self.now()

    def _queue_sync(self, bulkhead: Bulkhead, limit: float) -> float:
        try:
            bulkhead.enter_sync(limit - self.now())
        except BulkheadFullError as error:
            self._rejected(error)
            raise
        return self.now()

    def _rejected(self, error: BulkheadFullError) -> None:
        self.events.publish(Event("rejected", error.policy, self.name, error=error))

    def _check(self, result: object) -> None:
        failure = self.classify_result(result) if self.classify_result else None
        if failure is not None:
            raise FailedResultError(result, failure)

    def _run_sync(self, attempt: Attempt, fn: Callable[[], Any]) -> Any:
        timeout = attempt.begin()
        if timeout == NEVER:
            return _refuse_async(self.name, fn())

        def inside() -> Any:
            CURRENT.set(attempt)
            return _refuse_async(self.name, fn())

        try:
            return self.workers.run(self.name, inside, timeout)
        except OutOfTimeError:
            attempt.expired = True
            raise attempt.timeout_error() from None

    async def _messages(self, attempt: Attempt, fn: Callable[[], AsyncIterable[T]]) -> AsyncIterator[T]:
        scope: TimedScope = attempt
        messages: Any = None
        try:
            while True:
                try:
                    with scope:
                        messages = messages or aiter(fn())
                        message = await anext(messages)
                except StopAsyncIteration:
                    return
                if scope is attempt:
                    attempt.answered = self.now()
                    scope = TimedScope(self._unlimited, attempt.parent, attempt.limit, 0.0, attempt.attempt)
                yield message
                scope.started = self.now()
        finally:
            if hasattr(messages, "aclose"):
                await messages.aclose()

    def _fall_back(self, error: Exception) -> Any:
        """The fallback's result, or `error` again where it is the caller's own."""
        if self.fallback is None or not (isinstance(error, VoiceRuntimeError) or self.classify(error)):
            raise error
        self.statistics.fallbacks += 1
        self.events.publish(Event("fallback", "fallback", self.name, error=error))
        return self.fallback(error)


def _begun(messages: Iterable[T]) -> tuple[list[T], Iterator[T]]:
    """The first message, if there is one, and the rest."""
    rest = iter(messages)
    return list(islice(rest, 1)), rest


def _refuse_async(name: str, result: Any) -> Any:
    """A coroutine that nobody awaits would count as a success."""
    if not isawaitable(result) and not isasyncgen(result):
        return result
    if isinstance(result, CoroutineType):
        result.close()
    raise TypeError(f"{name}: a coroutine function needs `call`, an asynchronous generator function `stream`")
