"""An outbound call with its policies, outermost first.

    fallback → overall deadline → retry (with budget) → bulkhead → circuit breaker → attempt timeout → call

`Attempt` applies the policies to one attempt and counts it. `CallAttempts` repeats attempts. The methods of
`Outbound` run the call: `call` awaits a result, `call_sync` returns a result, `stream` yields messages, and `once` runs
a block. `call` is used most, so it repeats attempts without `CallAttempts`, and adds only one coroutine around the
callee's coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from functools import partial
from inspect import isasyncgen, isawaitable, isgenerator
from itertools import islice
from types import CoroutineType, GeneratorType
from typing import Any, ParamSpec, TypeVar

from voice_runtime.arguments import can_call_again, can_repeat
from voice_runtime.attempt import Attempt
from voice_runtime.breaker_state import Closed
from voice_runtime.call_attempts import CallAttempts
from voice_runtime.call_policies import CallPolicies
from voice_runtime.clock import NEVER
from voice_runtime.errors import SoftCallError, VoiceRuntimeError, keep_failure
from voice_runtime.events import Event
from voice_runtime.outcome import FailedResultError, decisive
from voice_runtime.timeout import CURRENT, TimedScope, Timeout
from voice_runtime.worker_threads import OutOfTimeError

P = ParamSpec("P")
T = TypeVar("T")


class Outbound(CallPolicies):
    """One declared call: its policies, and the functions that run it."""

    __slots__ = ()

    async def call(  # noqa: C901, PLR0912  # each further Python frame takes 2.5 % of the call's time
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await `fn(...)` under every policy except the fallback.

        Raises `FailedResultError` if the result of a soft call means failure.
        """
        clock = self.now
        now = clock()
        parent, limit = self.begin(now)
        bulkhead, breaker = self.bulkhead, self.breaker
        repeatable = not (args or kwargs) or self.retry is None or can_repeat(args, kwargs)
        failure: BaseException | None = None
        number = 1
        while True:
            if bulkhead is not None and not bulkhead.try_enter():
                now = await self.queue(bulkhead, limit, number - 1, failure)
            attempt = Attempt(self, parent, limit, now, number)
            try:
                if breaker is not None:
                    state = breaker.state
                    attempt.state = state if type(state) is Closed else breaker.acquire()
                attempt.enter()
                try:
                    result: Any = fn(*args, **kwargs) if kwargs else fn(*args)  # type: ignore[call-arg]  # no kwargs
                    if type(result) is CoroutineType or isawaitable(result):
                        result = await result
                    else:
                        _refuse_unrun(attempt, result)
                    if self.classify_result is not None:
                        self._check(result)
                except BaseException as error:
                    _mark_unsent(attempt, error)
                    attempt.leave(error)
                    raise
                attempt.leave()
            except BaseException as error:
                delay = attempt.failed(error, repeatable=repeatable and can_call_again(fn))
                if delay is None:
                    keep_failure(error, failure)
                    failure = None  # its traceback refers to this frame: a cycle that would keep both alive
                    if type(error) is FailedResultError and not self.soft:
                        return error.result  # type: ignore[return-value]  # the result of fn's awaitable
                    raise
                failure = error
            else:
                attempt.succeeded()
                failure = None  # as above
                return result  # type: ignore[no-any-return]  # as above
            finally:
                if bulkhead is not None:
                    bulkhead.leave()
            await asyncio.sleep(delay)
            now = self.now()
            number += 1

    def call_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn(...)` under every policy except the fallback. With a time limit `fn` runs on a worker thread."""
        attempts = CallAttempts(self, repeatable=can_call_again(fn) and can_repeat(args, kwargs))
        try:
            for attempt in attempts:
                with attempts:
                    attempt.admit()
                    result = self._run_sync(attempt, partial(_called, attempt, fn, args, kwargs))
                    if self.classify_result is not None:
                        self._check(result)
        except FailedResultError as error:
            if self.soft:
                raise
            return error.result  # type: ignore[return-value]  # the result of fn
        return result  # type: ignore[no-any-return]  # as above

    async def stream(
        self, fn: Callable[P, AsyncIterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T, None]:
        """Yield the messages of `fn(...)`. The stream succeeds when it ends.

        If the stream is a probe of a half-open breaker, the probe ends with the first message. The probe fails if that
        message is slow, and succeeds otherwise. The stream is retried only before its first message. An early `aclose`
        counts neither as a success nor as a failure. The attempt timeout covers the wait for the first message; the
        deadline covers every wait.
        """
        attempts = CallAttempts(self, repeatable=can_call_again(fn) and can_repeat(args, kwargs))
        with self._softened():
            async for attempt in attempts:
                with attempts:
                    attempt.admit()
                    async for message in self._messages(attempt, partial(_called, attempt, fn, args, kwargs)):
                        yield message

    def stream_sync(self, fn: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """Like `stream`, for code without an event loop.

        A worker thread fetches the first message, so the attempt timeout applies. Nothing interrupts the waits for
        later messages: the result of `fn` must observe the deadline itself.
        """
        attempts = CallAttempts(self, repeatable=can_call_again(fn) and can_repeat(args, kwargs))
        with self._softened():
            for attempt in attempts:
                with attempts:
                    attempt.admit()
                    begun, messages = self._run_sync(attempt, partial(_begun, attempt, fn, args, kwargs))
                    attempt.has_first_message()
                    yield from begun
                    yield from messages

    @asynccontextmanager
    async def once(self) -> AsyncIterator[TimedScope]:
        """Run a block as one attempt, under every policy except retry and fallback.

        A block can be neither repeated nor replaced.
        """
        attempts = CallAttempts(self, repeatable=False)
        with self._softened():
            attempt = await anext(attempts)
            with attempts:
                attempt.admit()
                with attempt:
                    yield attempt

    def unrepeated(self) -> Outbound:
        """The same call without retries, for code that can go on without an answer.

        Both calls share breaker, bulkhead and counts.
        """
        unrepeated = copy(self)
        unrepeated.retry = None
        return unrepeated

    def entry(self) -> Callable[..., Awaitable[Any]]:
        """The fastest function that does the same as `enter`: `call` for a hard call without injected faults."""
        return self.call if self.fault_injection is None and not self.soft else self.enter

    def enter(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Await `fn(...)` under every policy: like `call`, with injected faults inside and the fallback outside."""
        if self.fault_injection is not None:
            fn = self.fault_injection.around(self.name, fn)
        return self._call_soft(fn, *args, **kwargs) if self.soft else self.call(fn, *args, **kwargs)

    def enter_sync(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `enter`, for code without an event loop."""
        if self.fault_injection is not None:
            fn = self.fault_injection.around_sync(self.name, fn)
        try:
            return self.call_sync(fn, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # raised again unless the fallback answers
            return self._fall_back(error)  # type: ignore[no-any-return]  # the fallback's result in place of fn's

    async def _call_soft(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self.call(fn, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # raised again unless the fallback answers
            result = self._fall_back(error)
            return await result if isawaitable(result) else result  # type: ignore[no-any-return]  # as above

    def _check(self, result: object) -> None:
        failure = self.classify_result(result) if self.classify_result else None
        if failure is not None:
            raise FailedResultError(result, failure)

    def _run_sync(self, attempt: Attempt, fn: Callable[[], Any]) -> Any:
        timeout = attempt.begin()
        if timeout == NEVER:
            return _refuse_unrun(attempt, fn())

        def inside() -> Any:
            CURRENT.set(attempt)
            return _refuse_unrun(attempt, fn())

        try:
            return self.workers.run(self.name, inside, timeout)
        except OutOfTimeError:
            attempt.expired = True
            raise attempt.timeout_error() from None

    async def _messages(self, attempt: Attempt, fn: Callable[[], AsyncIterable[T]]) -> AsyncIterator[T]:
        scope: TimedScope = attempt
        unlimited = Timeout(self.name, NEVER, self.clock)
        messages: Any = None
        try:
            while True:
                try:
                    with scope:
                        messages = messages or _refuse_unstreamed(attempt, fn())
                        message = await anext(messages)
                except StopAsyncIteration:
                    return
                if scope is attempt:
                    attempt.has_first_message()
                    scope = TimedScope(unlimited, attempt.parent, attempt.limit, 0.0, attempt.attempt)
                yield message
                scope.started = self.now()
        finally:
            if hasattr(messages, "aclose"):
                await messages.aclose()

    def _fall_back(self, error: Exception) -> Any:
        """The fallback's result.

        Raises `error` itself for a hard call, or if `error` is not a failure. Raises `SoftCallError` for a failed soft
        call without a fallback.
        """
        if self.fallback is None or not self._fails_softly(error):
            with self._softened():
                raise error
        self.statistics.fallbacks += 1
        self.events.publish(Event("fallback", "fallback", self.name, error=error))
        return self.fallback(error)

    def _fails_softly(self, error: Exception) -> bool:
        return self.soft and (isinstance(decisive(error), VoiceRuntimeError) or self.classify(error) is not None)

    @contextmanager
    def _softened(self) -> Iterator[None]:
        """Convert the failure of a soft call into a `SoftCallError`."""
        try:
            yield
        except Exception as error:
            if not self._fails_softly(error):
                raise
            after, attempts = (error.retry_after, error.attempts) if isinstance(error, VoiceRuntimeError) else (None, 1)
            raise SoftCallError(self.name, after, attempts) from error


def _called(attempt: Attempt, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    try:
        return fn(*args, **kwargs)
    except TypeError as error:
        _mark_unsent(attempt, error)
        raise


def _mark_unsent(attempt: Attempt, error: BaseException) -> None:
    """Mark a call that could not begin: Python raised the `TypeError` before it ran a line of the function."""
    if type(error) is TypeError and error.__traceback__ is not None and error.__traceback__.tb_next is None:
        attempt.is_unsent = True


def _begun(
    attempt: Attempt, fn: Callable[..., Iterable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[T], Iterator[T]]:
    """A list with the first message, if there is one, and an iterator over the other messages."""
    rest = iter(_called(attempt, fn, args, kwargs))
    return list(islice(rest, 1)), rest


def _refuse_unrun(attempt: Attempt, result: Any) -> Any:
    """Refuse a coroutine or generator: the attempt would succeed now, and the work would run later without policies."""
    if not (isawaitable(result) or isasyncgen(result) or isgenerator(result)):
        return result
    raise _refusal(
        attempt,
        result,
        "use `call` for a coroutine function, `stream` for an asynchronous generator function, "
        "and `protect` for a generator function",
    )


def _refuse_unstreamed(attempt: Attempt, result: Any) -> AsyncIterator[Any]:
    """The messages of a stream. Refuses a result that cannot be iterated asynchronously."""
    if hasattr(result, "__aiter__"):
        return aiter(result)
    raise _refusal(attempt, result, "`stream` needs an asynchronous generator function")


def _refusal(attempt: Attempt, result: Any, accepted: str) -> TypeError:
    if isinstance(result, CoroutineType | GeneratorType):
        result.close()
    attempt.is_unsent = True
    return TypeError(f"{attempt.call.name}: the function's result is of type {type(result).__name__}: {accepted}")
