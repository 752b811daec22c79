"""The table. Run by `python -m bench.runtime` inside the environment that holds the peers."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from bench.runtime import ours, peers
from bench.runtime.measure import Case, bytes_a_key, measure

IMPORTS = """
import time
import pydantic
import yaml

class Model(pydantic.BaseModel):  # pydantic imports most of itself with the first model
    field: int = pydantic.Field(ge=0)

Model.model_json_schema()
begun = time.perf_counter()
import voice_runtime
print(time.perf_counter() - begun)
"""


async def main() -> None:
    """Measure everything, print it group by group, fastest first."""
    runtime, load = ours.loaded()
    bare = Case("bare call", "async", ours.callee)
    bare_sync = Case("bare call", "sync", ours.callee_sync, asynchronous=False)
    results = await measure([bare, bare_sync, *ours.cases(runtime), *await peers.cases()])
    groups = dict.fromkeys(case.group for case in results)
    print("| task | library | µs | × bare call | × ours | goal |\n|---|---|---|---|---|---|")  # a table
    for group in groups:
        rows = sorted(((case, cost) for case, cost in results.items() if case.group == group), key=lambda row: row[1])
        reference = next((cost for case, cost in rows if case.library.startswith("voice_runtime")), None)
        for case, cost in rows:
            print(row(case, cost, results[bare if case.asynchronous else bare_sync], reference))  # a table
    memory()
    print(f"| loading a bundle of ten calls | voice_runtime | {load:.1f} ms | | | ≤ 20 ms |")  # a table
    print(f"| importing, beyond pydantic | voice_runtime | {importing():.0f} ms | | | ≤ 60 ms |")  # a table


def row(case: Case, cost: float, bare: float, reference: float | None) -> str:
    """One line of the table."""
    against = f"{cost / reference:.1f}" if reference else ""
    goal = f"≤ {case.goal} {'met' if cost <= case.goal else 'missed'}" if case.goal else ""
    return f"| {case.group} | {case.library} | {cost:.2f} | {cost / bare:.1f} | {against} | {goal} |"


def memory() -> None:
    """Bytes a key at 100,000 keys."""
    keys = [f"tenant-{number}" for number in range(100_000)]
    sizes = {library: bytes_a_key(make, keys) for library, make in (ours.KEYED | peers.KEYED).items()}
    for library, size in sorted(sizes.items(), key=lambda entry: entry[1]):
        goal = ("≤ 120 " + ("met" if size <= 120 else "missed")) if library == "voice_runtime" else ""
        print(f"| memory a key | {library} | {size:.0f} B | | {size / sizes['voice_runtime']:.1f} | {goal} |")


def importing() -> float:
    """Milliseconds of `import voice_runtime` where pydantic is imported already, at best of seven."""
    command = [sys.executable, "-c", IMPORTS]
    return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(7)) * 1e3  # noqa: S603  # our own


if __name__ == "__main__":
    asyncio.run(main())
