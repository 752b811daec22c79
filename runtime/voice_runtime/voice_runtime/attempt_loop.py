"""The loop of attempts, for synchronous and asynchronous code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from voice_runtime.clock import SYSTEM_CLOCK

__all__ = ["AttemptLoop"]

DelayAfter = Callable[[BaseException, int], float | None]
"""Maps an error and the number of the failed attempt to the seconds until the next attempt; `None` raises the error."""


class AttemptLoop:
    """Yields the numbers of attempts, from 1, until an attempt succeeds or fails with a final error.

        attempts = AttemptLoop(delay_after)
        async for number in attempts:  # or `for`, in code that may block its thread
            with attempts:
                result = await work()
        return result

    The fastest paths have separate loops, because this object and its two awaits would take most of the call's time.
    """

    __slots__ = ("_delay", "_delay_after", "_number", "_sleep")

    def __init__(self, delay_after: DelayAfter, sleep: Callable[[float], None] = SYSTEM_CLOCK.sleep) -> None:
        self._delay_after = delay_after
        self._sleep = sleep
        self._number = 0
        self._delay: float | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if self._number:
            if self._delay is None:
                raise StopIteration
            self._sleep(self._delay)
        self._number += 1
        return self._number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        if self._number:
            if self._delay is None:
                raise StopAsyncIteration
            await asyncio.sleep(self._delay)
        self._number += 1
        return self._number

    def __enter__(self) -> None:
        self._delay = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is not None:
            self._delay = self._delay_after(error, self._number)
        return self._delay is not None
