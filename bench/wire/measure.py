"""Measures the time of a call for each row of the table, in short rounds.

A row is one way to make the call. Each round takes the rows in random order, so that other load affects all rows alike.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable

ROUNDS = 320
CALLS = 25
"""Number of calls of one row in one round. It is small, so that the machine's load stays the same within a round."""
WARM_UP = 20
"""Number of first rounds, which do not count."""
Rows = dict[str, Callable[[], Awaitable[object]]]


async def measure(rows: Rows) -> dict[str, tuple[float, float]]:
    """Microseconds per call at p50 and p99, for each row."""
    order = list(rows.items())
    times: dict[str, list[float]] = {name: [] for name in rows}
    gc.collect()
    gc.freeze()
    for _ in range(WARM_UP + ROUNDS):
        random.shuffle(order)
        for name, call in order:
            await _round(call, times[name])
    return {name: _percentiles(taken[WARM_UP * CALLS :]) for name, taken in times.items()}


async def _round(call: Callable[[], Awaitable[object]], taken: list[float]) -> None:
    for _ in range(CALLS):
        begun = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - begun)


def _percentiles(taken: list[float]) -> tuple[float, float]:
    ordered = sorted(taken)
    return ordered[len(ordered) // 2] * 1e6, ordered[len(ordered) * 99 // 100] * 1e6
