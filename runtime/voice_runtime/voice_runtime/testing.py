"""For tests of services: time that is told instead of waited for, and states that are set instead of provoked.

Waits are disabled by running on a `FakeClock`; a breaker is forced with `runtime.outbound(name).breaker.open()`, a
level with `runtime.degradation.override(level)`; randomness repeats with `Runtime.load(..., random=Random(seed))`.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["FakeClock", "run"]

T = TypeVar("T")


class FakeClock:
    """A clock that moves when it is told to. Sleeping on it returns at once and moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def monotonic(self) -> float:
        """The time it was told."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on; also back, to see that nothing minds."""
        self._now += seconds

    def sleep(self, seconds: float, /) -> None:
        """Move on by as much."""
        self.advance(seconds)


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for the next timer, jumps to it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._clock.advance(timeout)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that lives on a fake clock: `asyncio.sleep` and timeouts take no time at all."""

    def __init__(self, clock: FakeClock) -> None:
        self._fake_clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        """The fake clock's time."""
        return self._fake_clock.monotonic()


def run(main: Coroutine[Any, Any, T], clock: FakeClock) -> T:
    """`asyncio.run` on a fake clock. Threads and sockets still take the time that they take."""
    with asyncio.Runner(loop_factory=lambda: FakeTimeLoop(clock)) as runner:
        return runner.run(main)
