"""Threads for synchronous attempts, so that the caller goes on when time is up.

Python cannot stop a thread: one whose attempt timed out runs on until its call returns, and keeps its place meanwhile.
So the number of threads is bounded, and a caller that finds none is refused at once. They are daemons: a call that
never returns does not keep the process alive.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Lock, Thread
from typing import Any

from voice_runtime.errors import BulkheadFullError, NoThreadError

WORKER_THREADS = 64
"""Default bound."""
_Job = tuple[Future[Any], Callable[[], Any]]


class OutOfTimeError(Exception):
    """The wait is over; the call may not be."""


class WorkerThreads:
    """At most `limit` threads, started when they are first needed."""

    def __init__(self, limit: int = WORKER_THREADS) -> None:
        self.limit = limit
        self.threads = 0
        self.idle = 0
        self._lock = Lock()
        self._jobs: SimpleQueue[_Job] = SimpleQueue()

    def run(self, target: str, fn: Callable[[], Any], timeout: float) -> Any:
        """`fn()`, in a copy of the caller's context.

        Raises `OutOfTimeError`, `BulkheadFullError` where no thread is free, or `NoThreadError`.
        """
        self._reserve(target)
        future: Future[Any] = Future()
        context = copy_context()
        self._jobs.put((future, lambda: context.run(fn)))
        try:
            return future.result(min(timeout, TIMEOUT_MAX))
        except TimeoutError:
            if future.done():  # the call's own TimeoutError
                raise
            raise OutOfTimeError from None
        finally:
            future.cancel()  # whatever ended the wait, what no thread has begun is not begun

    def _reserve(self, target: str) -> None:
        with self._lock:
            if self.idle:
                self.idle -= 1
            elif self.threads < self.limit:
                self._start(target)
            else:
                raise BulkheadFullError(target)

    def _start(self, target: str) -> None:
        thread = Thread(target=self._work, name=f"voice-runtime-{self.threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(target) from error
        self.threads += 1

    def _work(self) -> None:
        while True:
            future, fn = self._jobs.get()
            _complete(future, fn)
            del future, fn  # an idle thread keeps nothing alive
            with self._lock:
                self.idle += 1


def _complete(future: Future[Any], fn: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn())
    except BaseException as error:  # noqa: BLE001  # it belongs to the caller, whatever it is
        future.set_exception(error)
