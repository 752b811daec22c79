"""Limits how often a log line is written, so that a storm of equal lines cannot fill the log."""

from __future__ import annotations

from collections.abc import Callable

from voice_runtime.clock import NEVER, SYSTEM_CLOCK

__all__ = ["LogRate", "since_previous"]

QUIET = 10.0
"""Seconds after a line during which equal lines are counted, but not written."""


class LogRate:
    """Admits the first of equal lines immediately, and then at most one every `QUIET` seconds."""

    __slots__ = ("_due", "_now", "_omitted")

    def __init__(self, now: Callable[[], float] = SYSTEM_CLOCK.monotonic) -> None:
        self._now = now
        self._due = -NEVER
        self._omitted = 0

    def admit(self) -> int | None:
        """The number of lines that were omitted since the previous line. `None`: omit this line, too."""
        now = self._now()
        if now < self._due:
            self._omitted += 1
            return None
        self._due = now + QUIET
        omitted, self._omitted = self._omitted, 0
        return omitted


def since_previous(omitted: int) -> str:
    """The end of a line: the number of equal lines that were omitted before it. Empty for 0."""
    return f" ({omitted} more since the previous line)" if omitted else ""
