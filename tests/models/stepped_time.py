"""Fake time for an event loop on another thread. The time moves only while a synchronous caller waits for the loop."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from voice_runtime.shared_store import LoopThread
from voice_runtime.testing import FakeClock

T = TypeVar("T")


class _SteppedSelector(selectors.DefaultSelector):
    def __init__(self, clock: FakeClock, is_awaited: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._is_awaited = is_awaited

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or not self._is_awaited():
            return super().select(None)
        self._clock.advance(timeout)
        return ready


class _SteppedLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: FakeClock, is_awaited: Callable[[], bool]) -> None:
        self._stepped_clock = clock
        super().__init__(_SteppedSelector(clock, is_awaited))

    def time(self) -> float:
        return self._stepped_clock.monotonic()


class SteppedThread(LoopThread):
    def __init__(self, clock: FakeClock) -> None:
        self._awaited = 0
        super().__init__(lambda: _SteppedLoop(clock, lambda: self._awaited > 0))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return super().run(self._counted(coroutine))

    async def _counted(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._awaited += 1
        try:
            return await coroutine
        finally:
            self._awaited -= 1
