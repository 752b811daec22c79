"""The tables. Run by `python -m bench.shared_state` inside the environment that holds the peers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from bench.shared_state import ours, peers
from bench.shared_state.ours import LEASE, Check
from tests.runtime.redis_servers import single

ROUNDS, CHECKS, TOGETHER = 150, 32, 64
"""Short rounds: one that nothing interrupts is found among them even where others use the machine."""
PROCESSES, RATE, BURST, SECONDS = 8, 500, 1000, 4
HAMMER = [sys.executable, "-m", "bench.shared_state.hammer"]


async def one_after_another(check: Check) -> None:
    """As one request at a time."""
    for _ in range(CHECKS):
        await check()


async def together(check: Check) -> None:
    """As many requests at once."""
    await asyncio.gather(*(check() for _ in range(TOGETHER)))


async def costs(url: str) -> None:
    """Microseconds a check: minimum of interleaved rounds, so that each row is disturbed alike."""
    checks = await ours.bare(url) | ours.cases(url) | peers.cases(url)
    alone, among = dict.fromkeys(checks, float("inf")), dict.fromkeys(checks, float("inf"))
    for _ in range(ROUNDS):
        for best, way, count in (
            (alone, one_after_another, CHECKS),
            (among, together, TOGETHER),
        ):
            for name, check in checks.items():
                await check()  # what the row before left cold is not this one's cost
                begun = time.perf_counter()
                await way(check)
                best[name] = min(best[name], (time.perf_counter() - begun) / count * 1e6)
    bare = {part: alone[f"bare EVALSHA, {part}"] for part in ("token bucket", "sliding window")}
    print(f"| check | µs | × bare EVALSHA | µs, {TOGETHER} at once on one key | goal |\n|---|---|---|---|---|")
    for name, cost in sorted(alone.items(), key=lambda row: row[1]):
        ratio = cost / bare["sliding window" if "sliding window" in name else "token bucket"]
        print(f"| {name} | {cost:.1f} | {ratio:.2f} | {among[name]:.1f} | {_goal(name, ratio)} |")


def _goal(name: str, ratio: float) -> str:
    goal = 0.1 if "lease" in name else 1.15
    return f"≤ {goal} {'met' if ratio <= goal else 'missed'}" if name.startswith("voice_runtime") else ""


def accuracy(url: str, lease: int) -> None:
    """What processes together were given, against the limit from the first that asked to the last."""
    command = [*HAMMER, url, f"{RATE}/s", str(BURST), str(lease), str(SECONDS)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
        for _ in range(PROCESSES)
    ]
    for process in processes:
        _pipe(process.stdout).readline()
    for process in processes:
        _pipe(process.stdin).write("go\n")
        _pipe(process.stdin).flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    span = max(each["asked"] for each in found) - min(each["begun"] for each in found)
    limit, admitted = BURST + RATE * span, sum(each["admitted"] for each in found)
    print(f"| {lease} | {admitted} | {limit:.0f} | {admitted / limit - 1:+.2%} | ± {PROCESSES * lease / limit:.2%} |")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise TypeError("the process was started with its pipes")
    return pipe


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as directory, single(Path(directory)) as server:
        asyncio.run(costs(server.url))
        print(
            f"\n| lease | admitted by {PROCESSES} processes | limit | error | at most leased |\n|---|---|---|---|---|"
        )
        for lease in (1, 5, LEASE // 4):
            server.ask("FLUSHALL")
            accuracy(server.url, lease)


if __name__ == "__main__":
    main()
