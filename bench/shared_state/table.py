"""Measures distributed limits, and prints two tables: the cost of a check, and the error of a limit for each lease.

`python -m bench.shared_state` runs this module in a virtual environment with the compared libraries.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import IO, NamedTuple

from bench.shared_state import ours, peers
from bench.shared_state.ours import ALIKE, DEFAULT, LEASES, Check
from tests.redis_servers import Server, single

ROUNDS, CHECKS, TOGETHER = 150, 32, 64
"""Each of `ROUNDS` rounds makes `CHECKS` sequential and `TOGETHER` simultaneous checks for each row. A round is short
and measures every row, so that other load affects every row alike."""
PROCESSES, RATE, BURST, SECONDS = 8, 5000, 10_000, 4
HAMMER = [sys.executable, "-m", "bench.shared_state.hammer"]
ROW = "voice_runtime, token bucket"
OURS = (ROW, "voice_runtime, sliding window")
COST_GOAL, THROUGHPUT_GOAL, ERROR_GOAL = 1.15, 10, 0.01
"""`COST_GOAL`: the largest cost of a check, as a multiple of a bare EVALSHA without redis-py's timeouts.
`THROUGHPUT_GOAL`: the smallest number of checks per second with the largest lease, as a multiple of the number with
lease 1. `ERROR_GOAL`: the largest error with lease 1. A lease is the number of admissions that a process takes from the
store in one round trip."""


async def one_after_another(check: Check) -> None:
    """Make `CHECKS` checks."""
    for _ in range(CHECKS):
        await check()


async def together(check: Check) -> None:
    """Make `TOGETHER` checks."""
    await asyncio.gather(*(check() for _ in range(TOGETHER)))


async def costs(url: str) -> dict[str, float]:
    """Measure and print the microseconds that a check takes, for each row. Returns the numbers for sequential checks.

    Each number is the median of `ROUNDS` rounds.
    """
    checks = await ours.bare(url) | ours.cases(url) | peers.cases(url)
    alone: dict[str, list[float]] = {name: [] for name in checks}
    among: dict[str, list[float]] = {name: [] for name in checks}
    for _ in range(ROUNDS):
        for taken, run, count in ((alone, one_after_another, CHECKS), (among, together, TOGETHER)):
            for name, check in checks.items():
                await check()  # not measured: the first check after another row is slower
                begun = time.perf_counter()
                await run(check)
                taken[name].append((time.perf_counter() - begun) / count * 1e6)
    return _print_costs(*({name: median(rounds) for name, rounds in found.items()} for found in (alone, among)))


def _print_costs(alone: dict[str, float], among: dict[str, float]) -> dict[str, float]:
    head = ("check", "µs", f"× {DEFAULT}", "× without timeouts", f"µs, {TOGETHER} together on one key", "goal")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name, cost in sorted(alone.items(), key=lambda row: row[1]):
        ratio, by_default = alike(alone, name), cost / alone[f"{DEFAULT}, {_part(name)}"]
        goal = _goal(ratio <= COST_GOAL, f"≤ {COST_GOAL}") if name in OURS else ""
        print(f"| {name} | {cost:.1f} | {by_default:.2f} | {ratio:.2f} | {among[name]:.1f} | {goal} |")
    return alone


def alike(alone: dict[str, float], name: str) -> float:
    """The cost of a row, divided by the cost of the bare EVALSHA without redis-py's timeouts."""
    return alone[name] / alone[f"{ALIKE}, {_part(name)}"]


def _part(name: str) -> str:
    return "sliding window" if "sliding window" in name else "token bucket"


def _goal(met: bool, goal: str) -> str:
    return f"{goal} {'met' if met else 'missed'}"


class Admissions(NamedTuple):
    """The admissions of all processes together, from the first request to the last."""

    admitted: int
    limit: float
    """The number that the limit admits in this time."""
    unasked: float
    """Admissions that were still in the store at the end, because the processes were too slow to request them.
    `admitted` includes them, because the limit is not at fault."""


def accuracy(url: str, lease: int) -> Admissions:
    """Count the admissions of processes that send requests to one limit as fast as they can.

    At the end the processes take the admissions that are left in the store.
    """
    command = [*HAMMER, url, f"{RATE}/s", str(BURST), str(lease), str(SECONDS)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this program's own command
        for _ in range(PROCESSES)
    ]
    for process in processes:
        _pipe(process.stdout).readline()
    for process in processes:
        _pipe(process.stdin).write("go\n")
        _pipe(process.stdin).flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    span = max(each["asked"] for each in found) - min(each["begun"] for each in found)
    unasked = sum(each["remaining"] for each in found)
    return Admissions(sum(each["admitted"] for each in found) + unasked, BURST + RATE * span, unasked)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise TypeError("the process was started without pipes")
    return pipe


def leases(server: Server, alone: dict[str, float]) -> bool:
    """Print the gain and the error of each lease. Returns true if the goals are met.

    The gain is computed from `alone`. One run of `accuracy` measures the error.
    """
    admitters = f"admitted by {PROCESSES} processes"
    numbers = ("not requested in time", "limit", "error", "largest error by leases")
    head = ("lease", "checks per second", "× lease 1", admitters, *numbers, "goal")
    print(f"\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    ends = []
    for lease in LEASES:
        server.ask("FLUSHALL")
        admitted, limit, unasked = accuracy(server.url, lease)
        cost = alone[f"{ROW}, lease {lease}" if lease > 1 else ROW]
        gain, error, goal = alone[ROW] / cost, admitted / limit - 1, ""
        if lease == 1:
            ends.append(abs(error) <= ERROR_GOAL)
            goal = _goal(ends[-1], f"error ≤ {ERROR_GOAL:.0%}")
        elif lease == max(LEASES):
            ends.append(gain >= THROUGHPUT_GOAL)
            goal = _goal(ends[-1], f"≥ {THROUGHPUT_GOAL} ×")
        print(
            f"| {lease} | {1e6 / cost:,.0f} | {gain:.1f} | {admitted} | {unasked:.0f} | {limit:.0f} | {error:+.2%} "
            f"| ± {PROCESSES * lease / limit:.2%} | {goal} |"
        )
    return all(ends)


def main() -> int:
    """Print both tables. Returns 1 if a goal is missed."""
    with tempfile.TemporaryDirectory() as directory, single(Path(directory)) as server:
        alone = asyncio.run(costs(server.url))
        met = leases(server, alone)
    return int(not (met and all(alike(alone, name) <= COST_GOAL for name in OURS)))


if __name__ == "__main__":
    sys.exit(main())
