"""Tools for tests of services: a clock that tests control, and states that tests set.

Run on a `FakeClock` to wait for nothing. `runtime.outbound(name).breaker.open()` forces a breaker,
`runtime.degradation.override(level)` a level, and `Runtime.load(..., random=Random(seed))` makes random numbers
repeatable.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["FakeClock", "run"]

T = TypeVar("T")


class FakeClock:
    """A clock that moves only when a test moves it. Sleeping on it returns at once and moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def monotonic(self) -> float:
        """The current time of the fake clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forwards. It can also move backwards, to test that this does no harm."""
        self._now += seconds

    def sleep(self, seconds: float, /) -> None:
        """Move the clock forwards by `seconds`."""
        self.advance(seconds)


class _JumpingSelector(selectors.DefaultSelector):
    """Jumps to the next timer instead of waiting for it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on a fake clock: `asyncio.sleep` and timeouts take no time."""

    def __init__(self, clock: FakeClock) -> None:
        self._fake_clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        """The fake clock's time."""
        return self._fake_clock.monotonic()


def run(main: Coroutine[Any, Any, T], clock: FakeClock) -> T:
    """`asyncio.run` on a fake clock. Threads and sockets still take real time."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(main)
