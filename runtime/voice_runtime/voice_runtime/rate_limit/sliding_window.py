"""Sliding window: at most `limit` admissions in any span of `window`.

The window is a log of admissions. Admissions within one sixty-fourth of the window share an entry, which leaves when
its last admission does. So the bound holds in any span, memory is bounded, and a slot becomes free up to `window / 64`
late, never early.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

from voice_runtime.clock import NEVER

RESOLUTION = 64
"""Number of entries of a window."""


class SlidingWindow:
    """The admissions of the last `window` seconds."""

    __slots__ = ("_count", "_entries", "_grain", "_last", "_latest", "_lock", "_opened", "admitted", "limit", "window")

    def __init__(self, limit: int, window: float) -> None:
        self._lock = Lock()
        self._entries: deque[tuple[float, int]] = deque()
        """Closed entries: time of the last admission, and number of admissions."""
        self._opened = self._latest = self._last = -NEVER
        self._count = 0
        self.admitted = 0
        """Admissions within the window at the last read of the log."""
        self.limit = limit
        self.window = window
        self._grain = window / RESOLUTION

    def take(self, now: float, cost: int = 1) -> float:
        """Admit `cost`. Returns 0 if it fits, else seconds until it does; infinite if it never will."""
        self._lock.acquire()  # as in `TokenBucket.take`
        try:
            if now < self._latest:
                now = self._latest  # a clock that ran backwards frees nothing
            else:
                self._latest = now
            if now - self._opened > self._grain:
                self._close(now)
            if self.admitted + cost > self.limit and not self._fits(now, cost):
                return self._wait(now, cost) if cost <= self.limit else NEVER
            self.admitted += cost
            self._count += cost
            self._last = now
            return 0.0
        finally:
            self._lock.release()

    def wait(self, now: float, cost: int = 1) -> float:
        """Seconds until `cost` would fit. More than `limit` counts as several windows in a row."""
        with self._lock:
            rounds, rest = divmod(cost - 1, self.limit)
            fits = self._fits(now, rest + 1)
            return rounds * self.window + (0.0 if fits else self._wait(now, rest + 1))

    def is_full(self, now: float) -> bool:
        """True if the log can be dropped: it has no admission within the window."""
        return self._last <= now - self.window

    def inherit(self, other: SlidingWindow) -> None:
        """Begin with the admissions of `other`."""
        with other._lock:
            self._entries = other._entries.copy()
            self._opened, self._latest, self._last = other._opened, other._latest, other._last
            self._count, self.admitted = other._count, other.admitted

    def reconfigure(self, limit: int, window: float) -> None:
        """Continue under another limit. Admissions stay; a longer window sees only those that are still in the log."""
        with self._lock:
            self.limit = limit
            self.window = window
            self._grain = window / RESOLUTION

    def _close(self, now: float) -> None:
        """Close the open entry and open one at `now`. Drop entries that have left the window."""
        if self._count:
            self._entries.append((self._last, self._count))
        self._opened, self._count = now, 0
        self._expire(now)

    def _expire(self, now: float) -> None:
        horizon = now - self.window
        while self._entries and self._entries[0][0] <= horizon:
            self.admitted -= self._entries.popleft()[1]

    def _fits(self, now: float, cost: int) -> bool:
        self._expire(now)
        return self.admitted + cost <= self.limit

    def _wait(self, now: float, cost: int) -> float:
        excess = self.admitted + cost - self.limit
        for last, count in self._entries:
            excess -= count
            if excess <= 0:
                return last + self.window - now
        return self._last + self.window - now
