"""Disk: free space of a file system. A file system that hangs blocks one thread, and not the event loop."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import Future
from threading import Thread

from voice_policies import Bytes, HealthCheck

from voice_runtime.health.check import Checker


class LowDiskError(Exception):
    """The file system has less free space than `min_free`."""


def disk_checker(policy: HealthCheck) -> Checker:
    """A checker that raises `LowDiskError` if less than `min_free` is free."""
    if policy.min_free is None:
        raise ValueError("min_free is missing: expected a size, such as 1Gi")
    least, path = policy.min_free, policy.target
    looking: Future[Bytes] | None = None

    async def look() -> None:
        nonlocal looking
        if looking is None or looking.done():
            looking = _begin(path)
        free = await asyncio.shield(asyncio.wrap_future(looking))
        if free < least:
            raise LowDiskError(f"{path} has {free} free, but min_free is {least}")

    return look


def _begin(path: str) -> Future[Bytes]:
    found: Future[Bytes] = Future()

    def look() -> None:
        try:
            found.set_result(Bytes.of_units(shutil.disk_usage(path).free))
        except (OSError, ValueError) as error:  # ValueError: the path contains NUL
            found.set_exception(error)

    Thread(target=look, name=f"disk check {path}", daemon=True).start()
    return found
