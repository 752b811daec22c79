"""Minimum of interleaved rounds: the cost of a call without disturbance."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 15
CALLS = 4_000


@dataclass(frozen=True)
class Case:
    """One library at one task. `call` makes one call; an asynchronous one is awaited."""

    group: str
    library: str
    call: Callable[[], Any]
    asynchronous: bool = True
    goal: float | None = None
    """The project's goal, in microseconds."""


async def measure(cases: list[Case]) -> dict[Case, float]:
    """Microseconds a call, for each case."""
    best = dict.fromkeys(cases, float("inf"))
    gc.disable()
    for _ in range(ROUNDS):
        for case in cases:
            seconds = await _asynchronous(case.call) if case.asynchronous else _synchronous(case.call)
            best[case] = min(best[case], seconds / CALLS * 1e6)
        gc.collect()
    gc.enable()
    return best


async def _asynchronous(call: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        await call()
    return time.perf_counter() - begun


def _synchronous(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return time.perf_counter() - begun


def bytes_a_key(limiter: Callable[[], Callable[[str], Any]], keys: list[str]) -> float:
    """Memory of a limiter for each key, without the key itself."""
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
