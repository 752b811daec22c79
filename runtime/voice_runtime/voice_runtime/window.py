"""A count over a sliding window."""

from __future__ import annotations

from collections import deque

BUCKETS = 10
"""Parts of a window: a count ages out in steps of a tenth."""


class Window:
    """How often something happened within the last `duration`, and at most a tenth of it longer.

    Memory is constant, counting is one comparison and one addition, and counts age out without traffic. Counting is
    open-coded where it must be fast: `if now >= window.end: window.rotate(now)`, then `window.count += 1`. Two threads
    that count at once may lose one count on a build without the global lock; what must be exact counts under a lock.
    """

    __slots__ = ("_past", "_past_total", "_width", "count", "duration", "end")

    def __init__(self, duration: float, now: float) -> None:
        self.duration = duration
        self._width = duration / BUCKETS
        self._past: deque[tuple[float, int]] = deque()
        self._past_total = 0
        self.end = now + self._width
        """When the current bucket ends."""
        self.count = 0
        """The current bucket."""

    def add(self, now: float) -> None:
        """Count one."""
        if now >= self.end:
            self.rotate(now)
        self.count += 1

    def rotate(self, now: float) -> None:
        """Close the current bucket and open the one that `now` falls in."""
        if self.count:
            self._past.append((self.end, self.count))
            self._past_total += self.count
            self.count = 0
        self.end += ((now - self.end) // self._width + 1) * self._width
        self._expire(now)

    def total(self, now: float) -> int:
        """The count over the window."""
        if now >= self.end:
            self.rotate(now)
        return self._past_total + self.count

    def clear(self) -> None:
        """Forget every count."""
        self._past.clear()
        self._past_total = self.count = 0

    def _expire(self, now: float) -> None:
        horizon = now - self.duration
        while self._past and self._past[0][0] <= horizon:
            self._past_total -= self._past.popleft()[1]
