"""Sliding window: at most `limit` admissions in any span of `window`.

The window is a log of admissions. Admissions within one sixty-fourth of the window share an entry. The entry leaves the
window together with its last admission. So the limit holds in any span, and memory is bounded. An admission may
count up to `window / 64` too long, never too short.
"""

from __future__ import annotations

from threading import Lock

from voice_runtime.clock import NEVER

RESOLUTION = 64
"""The window is divided into this number of entries."""


class WindowShape:
    """The numbers and the lock that all keys of a limit share. So a key takes 150 bytes instead of 1,100."""

    __slots__ = ("grain", "latest", "limit", "lock", "window")

    def __init__(self, limit: int, window: float) -> None:
        self.lock = Lock()
        self.latest = -NEVER
        """The latest time seen. If the clock runs backwards, `take` uses this time."""
        self.reconfigure(limit, window)

    def reconfigure(self, limit: int, window: float) -> None:
        """Continue with another limit and window.

        If the window becomes longer, admissions that have already left the log do not count.
        """
        with self.lock:
            self.limit = limit
            self.window = window
            self.grain = window / RESOLUTION


class SlidingWindow:
    """The admissions of the last `window` seconds."""

    __slots__ = ("_count", "_entries", "_last", "_opened", "admitted", "shape")

    def __init__(self, shape: WindowShape) -> None:
        self.shape = shape
        self._entries: tuple[tuple[float, int], ...] = ()
        """The closed entries: time of the last admission, and number of admissions. `_opened`, `_last` and `_count` are
        the open entry. Most keys never have a closed entry."""
        self._opened = self._last = -NEVER
        self._count = 0
        self.admitted = 0
        """Admissions that count against the limit. An expired entry counts until `_expire` drops it."""

    def take(self, now: float, cost: int = 1) -> float:
        """Admit `cost` if it fits, and return 0. Otherwise return the seconds until `cost` fits.

        Infinity if `cost` is above `limit`.
        """
        shape = self.shape
        shape.lock.acquire()  # faster than `with`, as in `TokenBucket.take`
        try:
            if now < shape.latest:
                now = shape.latest
            else:
                shape.latest = now
            if now - self._opened > shape.grain:
                self._close(now)
            if self.admitted + cost > shape.limit and not self._fits(now, cost):
                return self._wait(now, cost) if cost <= shape.limit else NEVER
            self.admitted += cost
            self._count += cost
            self._last = now
            return 0.0
        finally:
            shape.lock.release()

    def wait(self, now: float, cost: int = 1) -> float:
        """Seconds until `cost` would fit. A cost above `limit` takes several windows in a row."""
        shape = self.shape
        with shape.lock:
            rounds, rest = divmod(cost - 1, shape.limit)
            fits = self._fits(now, rest + 1)
            return rounds * shape.window + (0.0 if fits else self._wait(now, rest + 1))

    def is_full(self, now: float) -> bool:
        """True if no admission is within the window, so that this window can be dropped."""
        return self._last <= now - self.shape.window

    def inherit(self, other: SlidingWindow) -> None:
        """Begin with the admissions of `other`, which must have the same shape."""
        with self.shape.lock:
            self._entries = other._entries
            self._opened, self._last = other._opened, other._last
            self._count, self.admitted = other._count, other.admitted

    def _close(self, now: float) -> None:
        if self._count:
            self._entries = (*self._entries, (self._last, self._count))
        self._opened, self._count = now, 0
        self._expire(now)

    def _expire(self, now: float) -> None:
        horizon, gone = now - self.shape.window, 0
        for last, count in self._entries:
            if last > horizon:
                break
            self.admitted -= count
            gone += 1
        if gone:
            self._entries = self._entries[gone:]

    def _fits(self, now: float, cost: int) -> bool:
        self._expire(now)
        return self.admitted + cost <= self.shape.limit

    def _wait(self, now: float, cost: int) -> float:
        shape = self.shape
        excess = self.admitted + cost - shape.limit
        for last, count in self._entries:
            excess -= count
            if excess <= 0:
                return last + shape.window - now
        return self._last + shape.window - now
