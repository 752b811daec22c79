"""Measures the CPU time of a call. The cases take turns in short slices. The result is the median of a case's slices.

The clock counts only the CPU time of this thread. Other programs still slow the thread, because they empty the CPU's
caches. All cases suffer equally, because their slices alternate. So compare ratios, and only within one run.
"""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

ROUNDS = 60
CALLS = 400
"""Number of calls in one slice. Most slices take less than a millisecond."""
HIGHEST_LOAD = 0.5
"""If the load average of other programs exceeds this value per core, the benchmark does not judge its goals."""


@dataclass(frozen=True)
class Case:
    """One task, done by one library. `call` makes one call; the result of an asynchronous `call` is awaited."""

    group: str
    library: str
    call: Callable[[], Any]
    asynchronous: bool = True


async def measure(cases: list[Case]) -> dict[Case, float]:
    """Microseconds of CPU per call, for each case."""
    slices: dict[Case, list[float]] = {case: [] for case in cases}
    gc.disable()
    for _ in range(ROUNDS):
        for case in cases:
            seconds = await _asynchronous(case.call) if case.asynchronous else _synchronous(case.call)
            slices[case].append(seconds / CALLS * 1e6)
        gc.collect()
    gc.enable()
    return {case: median(taken) for case, taken in slices.items()}


async def _asynchronous(call: Callable[[], Awaitable[Any]]) -> float:
    await call()  # fills the CPU's caches again after the previous case
    begun = time.thread_time()
    for _ in range(CALLS):
        await call()
    return time.thread_time() - begun


def _synchronous(call: Callable[[], Any]) -> float:
    call()  # fills the CPU's caches again
    begun = time.thread_time()
    for _ in range(CALLS):
        call()
    return time.thread_time() - begun


def load(*, own: int) -> float:
    """The load of other programs per core in the last minute. `own` is the number of busy threads of this process."""
    return max(os.getloadavg()[0] - own, 0.0) / (os.cpu_count() or 1)


def bytes_per_key(limiter: Callable[[], Callable[[str], Any]], keys: list[str]) -> float:
    """Memory of a limiter in bytes per key, without the key itself."""
    gc.collect()
    tracemalloc.start()
    take = limiter()
    before, _ = tracemalloc.get_traced_memory()
    for key in keys:
        take(key)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(keys)
