"""Where time comes from."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A clock that never runs backwards; the `time` module is one, `voice_runtime.testing.FakeClock` another.

    Asynchronous waits use the event loop's own timers, whose time a fake clock also drives.
    """

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment. Wall-clock steps do not show in it."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block the calling thread."""
        ...


SYSTEM_CLOCK: Clock = time
NEVER = float("inf")
"""Infinity, in seconds: no deadline, no limit."""
