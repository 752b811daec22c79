"""The attempts that the policies of one outbound call allow."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from voice_runtime.attempt import Attempt
from voice_runtime.attempt_loop import AttemptLoop
from voice_runtime.bulkhead import Bulkhead
from voice_runtime.call_policies import CallPolicies
from voice_runtime.errors import keep_failure


class CallAttempts:
    """Yields the attempts of one call. Each attempt holds a slot of the bulkhead until the end of the `with` block.

        attempts = CallAttempts(policies)
        async for attempt in attempts:  # or `for`, in code that may block its thread
            with attempts:
                attempt.admit()
                ...

    `repeatable` is false for a call with an argument that can be read only once: such a call is not retried.
    """

    __slots__ = ("_attempt", "_began", "_call", "_failure", "_limit", "_loop", "_parent", "_repeatable", "_slot")

    _attempt: Attempt

    def __init__(self, call: CallPolicies, *, repeatable: bool = True) -> None:
        self._call = call
        self._failure: BaseException | None = None
        self._repeatable = repeatable
        self._slot: Bulkhead | None = None
        self._began = call.now()
        self._parent, self._limit = call.begin(self._began)
        self._loop = AttemptLoop(self._settle, call.clock.sleep)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Attempt:
        number, call = next(self._loop), self._call
        if call.bulkhead is not None and not call.bulkhead.try_enter():
            call.queue_sync(call.bulkhead, self._limit, number - 1, self._failure)
        return self._begun(number)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Attempt:
        number, call = await anext(self._loop), self._call
        if call.bulkhead is not None and not call.bulkhead.try_enter():
            await call.queue(call.bulkhead, self._limit, number - 1, self._failure)
        return self._begun(number)

    def __enter__(self) -> None:
        self._loop.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._slot is not None:
            self._slot.leave()
            self._slot = None
        if error is None:
            self._attempt.succeeded()
        return self._loop.__exit__(kind, error, traceback)

    def __del__(self) -> None:
        # An asynchronous generator never leaves the `with` if its event loop is closed. Then the slot is freed here.
        if self._slot is not None:
            self._slot.leave()

    def _begun(self, number: int) -> Attempt:
        self._slot = self._call.bulkhead
        self._attempt = Attempt(self._call, self._parent, self._limit, self._call.now(), number)
        self._attempt.began = self._began
        return self._attempt

    def _settle(self, error: BaseException, _: int) -> float | None:
        delay = self._attempt.failed(error, repeatable=self._repeatable)
        if delay is None:
            keep_failure(error, self._failure)
        else:
            self._failure = error
        return delay
