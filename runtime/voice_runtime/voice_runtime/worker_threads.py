"""Threads for synchronous attempts, so that the caller continues when time is up.

Python cannot stop a thread. After a timeout the thread stays occupied until its call returns. So the number of threads
is bounded, and a caller that finds no free thread is refused immediately. The threads are daemons, so a call that never
returns does not keep the process alive.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from threading import TIMEOUT_MAX, Lock, Thread
from typing import Any

from voice_runtime.errors import BulkheadFullError, NoThreadError

WORKER_THREADS = 64
"""Default of the maximum number of threads."""
_Job = tuple[Future[Any], Callable[[], Any]]


class OutOfTimeError(Exception):
    """The wait timed out, and the call may still be running."""


class _Pool:
    """The state that the threads share.

    It has no reference to `WorkerThreads`, so the threads do not keep `WorkerThreads` alive.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.threads = 0
        self.idle = 0
        self.lock = Lock()
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def start(self, target: str) -> None:
        thread = Thread(target=self._work, name=f"voice-runtime-{self.threads + 1}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(target) from error
        self.threads += 1

    def end(self) -> None:
        """End each thread when it is idle."""
        for _ in range(self.threads):
            self.jobs.put(None)

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            _complete(*job)
            del job  # an idle thread must not keep the job alive
            with self.lock:
                self.idle += 1


class WorkerThreads:
    """At most `limit` threads, started when they are needed. They end when this object is deleted."""

    def __init__(self, limit: int = WORKER_THREADS) -> None:
        self.limit = limit
        self._begin()

    def _begin(self) -> None:
        self._pool = pool = _Pool()
        weakref.finalize(self, pool.end).atexit = False

    @property
    def threads(self) -> int:
        """Number of started threads."""
        return self._pool.threads

    @property
    def idle(self) -> int:
        """Number of threads that wait for work."""
        return self._pool.idle

    def run(self, target: str, fn: Callable[[], Any], timeout: float) -> Any:
        """Run `fn()` in a copy of the caller's context.

        Raises `OutOfTimeError` after `timeout` seconds. Raises `BulkheadFullError` if `limit` threads are busy. Raises
        `NoThreadError` if a thread cannot start.
        """
        if self._pool.process != os.getpid():
            self._begin()  # the threads do not exist in the forked process
        pool = self._pool
        future: Future[Any] = Future()
        context = copy_context()
        self._reserve(pool, target)
        pool.jobs.put((future, lambda: context.run(fn)))
        try:
            return future.result(min(timeout, TIMEOUT_MAX))
        except TimeoutError:
            if future.done():  # the call itself raised TimeoutError
                raise
            raise OutOfTimeError from None
        finally:
            future.cancel()  # the caller waits no longer, so a thread must not begin the work

    def _reserve(self, pool: _Pool, target: str) -> None:
        with pool.lock:
            if pool.idle:
                pool.idle -= 1
            elif pool.threads < self.limit:
                pool.start(target)
            else:
                raise BulkheadFullError(target)


def _complete(future: Future[Any], fn: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(fn())
    except BaseException as error:  # noqa: BLE001  # passed to the caller
        future.set_exception(error)
