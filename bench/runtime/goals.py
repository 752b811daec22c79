"""The goals of the runtime's speed, as ratios between rows of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

OURS = "voice_runtime"
WINDOWED, CONSECUTIVE = f"{OURS} (window, slow calls)", f"{OURS} (consecutive)"
FUSED = f"{OURS}, + bulkhead, budget, deadline, metrics"
OURS_BY_KEY = f"{OURS} (by key, for threads)"
OURS_WINDOW = f"{OURS} (sliding window)"
INBOUND = f"{OURS}: limit, bulkhead, level, deadline"
FLOOR = "least code for a shared timer"
THREE, TIMEOUT = "retry + breaker + timeout, async", "timeout, async"
Costs = Mapping[tuple[str, str], float]
"""Microseconds of a call, by group and library."""


@dataclass(frozen=True)
class Goal:
    """A number that must be at least `least` and at most `most`."""

    text: str
    value: Callable[[Costs], float]
    least: float = 0.0
    most: float = float("inf")

    def row(self, costs: Costs, *, judged: bool) -> str:
        """The line of this goal in the table of goals."""
        value = self.value(costs)
        wanted = f"≥ {self.least:g}" if self.least else f"≤ {self.most:g}"
        verdict = ("met" if self.least <= value <= self.most else "missed") if judged else "not judged"
        return f"| {self.text} | {value:.2f} | {wanted} | {verdict} |"


def beside_the_best(group: str, library: str = OURS) -> Callable[[Costs], float]:
    """The cost of the fastest peer of a group, divided by the cost of our row."""

    def ratio(costs: Costs) -> float:
        peers = (cost for (of, name), cost in costs.items() if of == group and not name.startswith((OURS, FLOOR)))
        return min(peers) / costs[group, library]

    return ratio


def share(row: tuple[str, str], other: tuple[str, str]) -> Callable[[Costs], float]:
    """The cost of one row, divided by the cost of another row."""
    return lambda costs: costs[row] / costs[other]


_PUBLIC, _PUBLIC_SYNC = "token bucket, public path, async", "token bucket, public path, sync"
GOALS = (
    Goal("retry + breaker + timeout with metrics, against the best library", beside_the_best(THREE, FUSED), least=8),
    Goal(
        "timeout, as a multiple of the least code for a shared timer",
        share((TIMEOUT, OURS), (TIMEOUT, FLOOR)),
        most=1.3,
    ),
    *(
        Goal(f"{name}, against the best library", beside_the_best(row, ours), least=least)
        for name, least, row, ours in (
            ("rejection by an open breaker", 2, "open rejection, async", OURS),
            ("closed breaker with a window, async", 2, "breaker closed, async", WINDOWED),
            ("closed breaker with a window, sync", 2, "breaker closed, sync", WINDOWED),
            ("closed breaker that counts consecutive failures, async", 2, "breaker closed, async", CONSECUTIVE),
            ("closed breaker that counts consecutive failures, sync", 2, "breaker closed, sync", CONSECUTIVE),
            ("token bucket's public path, async", 1, _PUBLIC, OURS_BY_KEY),
            ("token bucket's public path, sync", 1, _PUBLIC_SYNC, OURS_BY_KEY),
        )
    ),
    Goal(
        "inbound pipeline, as a multiple of a timeout", share(("inbound, async", INBOUND), (TIMEOUT, OURS)), most=2.55
    ),
)
"""Before its deadlines shared one timer, the inbound pipeline took 5.1 times as long as a timeout. The goal is half of
that."""
