"""Bulkhead: bounds the calls in flight to each target, so that one slow target does not occupy the whole service."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from voice_policies import Bulkhead as Policy

from voice_runtime.errors import BulkheadFullError


class _Turn:
    __slots__ = ("granted", "wake")

    def __init__(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self.granted = False


class Bulkhead:
    """The slots of one target, and the queue of calls that wait for a slot. Tasks and threads share one FIFO queue.

    Free slots are entries of a list. `pop` and `append` of a list are atomic, so entering and leaving take no lock
    while no call waits. A leaving call returns its slot before it checks the queue. A waiting call joins the queue
    before it checks for a slot. So the leaving call sees the waiting call, or the waiting call sees the slot.
    """

    __slots__ = (
        "_free",
        "_lock",
        "_owed",
        "_waiting",
        "max_concurrent",
        "max_queue",
        "queue_timeout",
        "rejected",
        "target",
    )

    def __init__(self, target: str, policy: Policy) -> None:
        self.target = target
        self.rejected = self._owed = self.max_concurrent = 0
        # Reentrant: the garbage collector may close a dropped generator here, and the generator then calls `leave`.
        self._lock = threading.RLock()
        self._free: list[None] = []
        self._waiting: deque[_Turn] = deque()
        self.reconfigure(policy)

    def reconfigure(self, policy: Policy) -> None:
        """Continue under a new policy.

        Calls in flight stay. If the new bound is lower, new calls wait until enough calls have ended.
        """
        with self._lock:
            grown = policy.max_concurrent - self.max_concurrent
            self.max_concurrent = policy.max_concurrent
            self.max_queue = policy.max_queue
            self.queue_timeout = policy.queue_timeout.seconds
            self._free.extend([None] * grown)
            self._owed += max(-grown, 0)
            self._settle()

    def __repr__(self) -> str:
        return f"<Bulkhead {self.target}: {self.in_flight} of {self.max_concurrent} in flight, {self.waiting} waiting>"

    @property
    def in_flight(self) -> int:
        """Slots in use. After a reload lowered `max_concurrent`, the number may be above it for a while."""
        return self.max_concurrent + self._owed - len(self._free)

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiting)

    def try_enter(self) -> bool:
        """Take a slot if one is free and no call waits. Returns false otherwise."""
        if self._waiting:
            return False
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def leave(self) -> None:
        """Return the slot. The call that has waited longest gets it, unless a reload has lowered `max_concurrent`."""
        self._free.append(None)
        if self._waiting or self._owed:
            with self._lock:
                self._settle()

    async def enter(self, remaining: float) -> None:
        """Wait for a slot, at most `queue_timeout` and at most `remaining` seconds.

        Raises `BulkheadFullError` if the queue is full, or if no slot became free in time.
        """
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        turn = _Turn(lambda: loop.call_soon_threadsafe(ready.set))
        try:
            self._queue(turn)
            async with asyncio.timeout(min(self.queue_timeout, remaining)):
                await ready.wait()
        except TimeoutError:
            self._give_up(turn)
        except BaseException:
            self._abandon(turn)
            raise

    def enter_sync(self, remaining: float) -> None:
        """Like `enter`, for code without an event loop."""
        ready = threading.Event()
        turn = _Turn(ready.set)
        try:
            self._queue(turn)
            granted = ready.wait(min(self.queue_timeout, remaining, threading.TIMEOUT_MAX))
        except BaseException:  # a signal's handler may raise anything
            self._abandon(turn)
            raise
        if not granted:
            self._give_up(turn)

    def _queue(self, turn: _Turn) -> None:
        with self._lock:
            if len(self._waiting) >= self.max_queue:
                self.rejected += 1
                raise BulkheadFullError(self.target)
            self._waiting.append(turn)
            self._settle()

    def _settle(self) -> None:
        """Remove free slots above the bound, then give the other free slots to waiting calls."""
        while (self._owed or self._waiting) and self._free:
            try:
                self._free.pop()
            except IndexError:
                return  # a call that did not wait took the slot first
            if self._owed:
                self._owed -= 1
            elif not self._grant():
                self._free.append(None)

    def _grant(self) -> bool:
        """Give a slot to the call that has waited longest. Returns false if that call cannot take it."""
        try:
            turn = self._waiting.popleft()
            turn.wake()
        except (IndexError, RuntimeError):  # a dropped generator left the queue, or the call's event loop is closed
            return False
        turn.granted = True
        return True

    def _give_up(self, turn: _Turn) -> None:
        """End a wait that timed out. Raises `BulkheadFullError`, unless the call got a slot at the last moment."""
        with self._lock:
            self._leave_queue(turn)
            if not turn.granted:
                self.rejected += 1
                raise BulkheadFullError(self.target)

    def _abandon(self, turn: _Turn) -> None:
        """End a wait after an error or a cancellation. Leave the queue, or return the call's slot."""
        with self._lock:
            self._leave_queue(turn)
            if turn.granted:
                self._free.append(None)
            self._settle()

    def _leave_queue(self, turn: _Turn) -> None:
        with suppress(ValueError):  # the call got a slot, or never was in the queue
            self._waiting.remove(turn)
