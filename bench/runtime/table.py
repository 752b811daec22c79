"""Measures the CPU time and memory of voice_runtime and of published libraries.

Prints a table of the measured rows, grouped by task, and a table of the goals.

`python -m bench.runtime` runs this module in a virtual environment with the compared libraries.
"""

from __future__ import annotations

import asyncio
import platform
import subprocess
import sys

from bench.runtime import ours, peers
from bench.runtime.goals import GOALS, OURS, OURS_WINDOW, Costs, Goal
from bench.runtime.measure import HIGHEST_LOAD, Case, bytes_per_key, load, measure

IMPORTS = """
import time
import asyncio
import pydantic

class Model(pydantic.BaseModel):  # pydantic imports most of its modules for the first model
    field: int = pydantic.Field(ge=0)

Model.model_json_schema()
begun = time.process_time()
import voice_runtime
print(time.process_time() - begun)
"""


async def main() -> int:
    """Measure all rows and print them by group. Returns 1 if a goal is missed, 2 if the machine is too busy."""
    before = load(own=0)
    runtime, loading = ours.loaded()
    refusing = ours.opened()
    bare = [Case("bare call", "async", ours.callee), Case("bare call", "sync", ours.callee_sync, asynchronous=False)]
    results = await measure([*bare, *ours.cases(runtime, refusing), *await peers.cases()])
    if refusing.current() != "open":
        raise RuntimeError("the open breaker did not stay open, so its row is wrong")
    print("| task | library | µs of CPU | × bare call | × ours |\n|---|---|---|---|---|")
    for group in dict.fromkeys(case.group for case in results):
        print_group({case: cost for case, cost in results.items() if case.group == group}, results, bare)
    sizes = memory()
    costs = {(case.group, case.library): cost for case, cost in results.items()}
    absolute = (
        Goal("bytes per key of a token bucket, at 100,000 keys", lambda _: sizes[OURS], most=120),
        Goal("bytes per key of a sliding window, at 100,000 keys", lambda _: sizes[OURS_WINDOW], most=200),
        Goal("milliseconds to load a bundle of ten calls", lambda _: loading, most=20),
        Goal("milliseconds of CPU to import voice_runtime, after asyncio and pydantic", lambda _: importing(), most=60),
    )
    return judge(costs, (*GOALS, *absolute), max(before, load(own=1)))


def print_group(rows: dict[Case, float], results: dict[Case, float], bare: list[Case]) -> None:
    """Print the lines of one task, fastest first."""
    ours_first = min((cost for case, cost in rows.items() if case.library.startswith(OURS)), default=0.0)
    for case, cost in sorted(rows.items(), key=lambda row: row[1]):
        against = f"{cost / ours_first:.1f}" if ours_first else ""
        multiple = cost / results[bare[0] if case.asynchronous else bare[1]]
        print(f"| {case.group} | {case.library} | {cost:.2f} | {multiple:.1f} | {against} |")


def memory() -> dict[str, float]:
    """Print and return the bytes per key at 100,000 keys, by library."""
    keys = [f"tenant-{number}" for number in range(100_000)]
    sizes = {library: bytes_per_key(make, keys) for library, make in (ours.KEYED | peers.KEYED).items()}
    for library, size in sorted(sizes.items(), key=lambda entry: entry[1]):
        print(f"| memory per key | {library} | {size:.0f} B | | {size / sizes[OURS]:.1f} |")
    return sizes


def judge(costs: Costs, goals: tuple[Goal, ...], busiest: float) -> int:
    """Print the goals and the load. Returns the exit code."""
    judged = busiest <= HIGHEST_LOAD
    rows = [goal.row(costs, judged=judged) for goal in goals]
    print("\n| goal | found | wanted | verdict |\n|---|---|---|---|")
    print("\n".join(rows))
    verdict = "" if judged else f", above {HIGHEST_LOAD}, so the goals are not judged"
    print(f"\nPython {platform.python_version()}; load of other programs {busiest:.2f} per core{verdict}")
    return (1 if any("| missed |" in row for row in rows) else 0) if judged else 2


def importing() -> float:
    """Milliseconds of CPU for `import voice_runtime` after asyncio and pydantic. The lowest of seven runs."""
    command = [sys.executable, "-c", IMPORTS]
    return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(7)) * 1e3  # noqa: S603  # this program's own command


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
