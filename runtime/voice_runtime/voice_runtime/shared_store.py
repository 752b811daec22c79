"""The interface of a store that replicas share, for example for distributed limits and token budgets."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import RLock, Thread
from typing import Any, Generic, Protocol, TypeVar

from voice_runtime.errors import NoThreadError

__all__ = ["LoopThread", "PerLoop", "Script"]

T = TypeVar("T")
NAME = "voice-runtime-loop"
"""Name of the thread with the event loop of synchronous callers."""


class Script:
    """A Lua script that runs as one step in the store."""

    __slots__ = ("sha", "text")

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class SharedStore(Protocol):
    """A store that runs scripts, such as `voice_runtime.redis.RedisStore`."""

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> Any:
        """Run the script on `keys`, and return its answer. Raises `ConnectionError` if the store cannot answer."""
        ...


class PerLoop(Generic[T]):
    """One object for each event loop. The first `get` on a new loop also drops the objects of closed loops.

    A `WeakKeyDictionary` would not drop them, because connections and locks refer to their loop.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """The object of the running loop."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            for closed in [kept for kept, _ in self.items() if kept.is_closed()]:
                self._made.pop(closed, None)  # no new dict, because other threads may add their loops meanwhile
            made = self._made[loop] = self._make()
        return made

    def pop(self) -> T | None:
        """Remove and return the object of the running loop."""
        return self._made.pop(asyncio.get_running_loop(), None)

    def items(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """All loops with their objects, as a copy: other threads may add loops."""
        return list(self._made.items())

    def values(self) -> list[T]:
        """The objects of all loops."""
        return [made for _, made in self.items()]

    def clear(self) -> None:
        """Remove all objects."""
        self._made.clear()


class LoopThread:
    """An event loop on its own thread, for callers without a loop. Its first use in a process starts it."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop) -> None:
        self._new_loop = new_loop
        self._lock = RLock()  # reentrant: the garbage collector may run a `__del__` here that calls `start`
        self._process = 0
        self._loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in a copy of the caller's context. Returns its result.

        Raises `NoThreadError` if the thread cannot start.
        """
        future = self.start(coroutine)
        try:
            return future.result()
        finally:
            future.cancel()  # after an interruption of the caller nobody needs the result

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start the coroutine in a copy of the caller's context. Raises `NoThreadError` if the thread cannot start."""
        try:
            loop = self._started()
        except RuntimeError as error:
            coroutine.close()
            raise NoThreadError(NAME) from error
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._process != os.getpid():
                loop = self._new_loop()
                try:
                    Thread(target=loop.run_forever, name=NAME, daemon=True).start()
                except RuntimeError:
                    loop.close()
                    raise
                self._process, self._loop = os.getpid(), loop
            return self._loop
