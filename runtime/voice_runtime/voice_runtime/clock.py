"""The source of time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A clock that never runs backwards: the `time` module, or `voice_runtime.testing.FakeClock`.

    Asynchronous waits use the event loop's timers. A fake clock also controls the time of these timers.
    """

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment. Changes of the wall clock do not affect it."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block the calling thread."""
        ...


SYSTEM_CLOCK: Clock = time
NEVER = float("inf")
"""Infinity, in seconds: no deadline, no limit."""
