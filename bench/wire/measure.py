"""Calls of all rows in turn, in random order, so that whatever disturbs the machine disturbs them alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable

CALLS = 8_000
WARM_UP = 500
Rows = dict[str, Callable[[], Awaitable[object]]]


async def measure(rows: Rows) -> dict[str, tuple[float, float]]:
    """Microseconds at p50 and p99, for each row."""
    order = list(rows.items())
    times: dict[str, list[float]] = {name: [] for name in rows}
    gc.collect()
    gc.freeze()
    for _ in range(WARM_UP + CALLS):
        random.shuffle(order)
        for name, call in order:
            begun = time.perf_counter()
            await call()
            times[name].append(time.perf_counter() - begun)
    return {name: _percentiles(taken[WARM_UP:]) for name, taken in times.items()}


def _percentiles(taken: list[float]) -> tuple[float, float]:
    ordered = sorted(taken)
    return ordered[len(ordered) // 2] * 1e6, ordered[len(ordered) * 99 // 100] * 1e6
