"""A count over a sliding window."""

from __future__ import annotations

from collections import deque
from threading import Lock

BUCKETS = 10
"""Number of buckets of a window. Old counts leave the window one bucket at a time."""


class Window:
    """The number of events within the last `duration` seconds. Events that are up to a tenth older may count, too.

    Memory is constant, counting takes one comparison and one addition, and old counts leave even without new events.
    Code that runs often does not call `add`. It contains the same statements: `if now >= window.end:
    window.rotate(now)`, then `window.count += 1`. Threads lose no count: the global interpreter lock is not released
    within the addition, and a rotation never sets `count`.
    """

    __slots__ = ("_begun", "_lock", "_past", "_past_total", "_width", "count", "duration", "end")

    def __init__(self, duration: float, now: float) -> None:
        self.duration = duration
        self._width = duration / BUCKETS
        self._lock = Lock()
        self._past: deque[tuple[float, int]] = deque()
        self._past_total = 0
        self.end = now + self._width
        """Time at which the current bucket ends."""
        self.count = 0
        """Number of all events ever counted."""
        self._begun = 0
        """The count at the start of the current bucket."""

    def add(self, now: float) -> None:
        """Count one event."""
        if now >= self.end:
            self.rotate(now)
        self.count += 1

    def rotate(self, now: float) -> None:
        """Close the current bucket, and open the bucket that contains `now`."""
        with self._lock:
            self._rotate(now)

    def total(self, now: float) -> int:
        """The number of events in the window at `now`."""
        with self._lock:
            self._rotate(now)
            return self._past_total + self.count - self._begun

    def clear(self) -> None:
        """Empty the window. `count` stays."""
        with self._lock:
            self._past.clear()
            self._past_total = 0
            self._begun = self.count

    def _rotate(self, now: float) -> None:
        if now < self.end:
            return  # the current bucket is still open
        count = self.count
        if count > self._begun:
            self._past.append((self.end, count - self._begun))
            self._past_total += count - self._begun
            self._begun = count
        self.end += ((now - self.end) // self._width + 1) * self._width
        horizon = now - self.duration
        while self._past and self._past[0][0] <= horizon:
            self._past_total -= self._past.popleft()[1]
