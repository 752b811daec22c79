"""`python -m bench.sagas`: measures steps per second of each saga engine, and commits per second of `pgbench`.

`pgbench` and the engine on PostgreSQL use one server. The server flushes every commit to disk, as by default.
Temporal's dev server keeps its data in memory. Contestants take turns, once in each round. The table shows the median
and the spread of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import asyncpg
from voice_saga.postgresql import migrate

from bench.arguments import add_rounds
from tests.postgresql_servers import Postgresql, running_postgresql
from tests.programs import postgresql
from tests.saga.temporal_server import running_temporal

CLIENTS = 4
GOAL = 0.25
"""The goal: steps per second on PostgreSQL with four workers, as a share of pgbench's commits per second."""


def main() -> int:
    """Measure and print. Returns 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 3, "measurements of each contestant")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each contestant in each round")
    options = parser.parse_args()
    with running_postgresql() as server, running_temporal() as temporal, tempfile.TemporaryDirectory() as directory:
        dsn = server.dsn("postgres")
        asyncio.run(_prepare(dsn))
        _pgbench(server, "-i", "-q", "-s", "10")
        rows = _measure(server, dsn, temporal, Path(directory, "sagas.db"), options.rounds, options.seconds)
    return _print(rows)


async def _prepare(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await migrate(connection)
    await connection.close()


def _measure(  # noqa: PLR0913, PLR0917  # the servers of one run
    server: Postgresql, dsn: str, temporal: str, file: Path, rounds: int, seconds: float
) -> dict[str, list[float]]:
    contestants: dict[str, Callable[[], float]] = {
        f"pgbench, {CLIENTS} clients (commits)": lambda: _commits(server, seconds),
        "PostgreSQL, 1 worker": lambda: _steps("postgresql", dsn, 1, seconds),
        "PostgreSQL, 4 workers": lambda: _steps("postgresql", dsn, 4, seconds),
        "SQLite": lambda: _steps("sqlite", str(file), 1, seconds),
        "Temporal dev server, 1 worker": lambda: _steps("temporal", temporal, 1, seconds),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            rates[name].append(contestant())
    return rates


def _pgbench(server: Postgresql, *arguments: str) -> str:
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "postgres"]
    command = [str(postgresql() / "pgbench"), *arguments, *where]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603  # this program's own command


def _commits(server: Postgresql, seconds: float) -> float:
    """Commits per second of pgbench's built-in TPC-B-like script. Each transaction is one commit."""
    output = _pgbench(server, "-n", "-c", str(CLIENTS), "-j", "2", "-T", str(max(1, round(seconds))))
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"the output of pgbench has no rate (tps): {output}")
    return float(found[1])


def _steps(kind: str, address: str, workers: int, seconds: float) -> float:
    command = [sys.executable, "-m", "bench.sagas.worker", kind, address, str(seconds)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  # this program's own command
        for _ in range(workers)
    ]
    lines: list[str] = []
    for process in running:
        assert process.stdout is not None  # noqa: S101  # requested as a pipe
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None  # noqa: S101  # as above
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        lines += process.communicate()[0].splitlines()[-1:]
    measured = [tuple(map(float, line.split())) for line in lines]
    return sum(steps for steps, _ in measured) / max(taken for _, taken in measured)


def _print(rates: dict[str, list[float]]) -> int:
    reference, *_ = rates.values()
    print("| engine | steps a second | spread | × pgbench commits | goal |\n|---|---|---|---|---|")
    missed = False
    for name, measured in rates.items():
        ratio = statistics.median(rate / against for rate, against in zip(measured, reference, strict=True))
        goal = ""
        if name == "PostgreSQL, 4 workers":
            missed = ratio < GOAL
            goal = f"≥ {GOAL} {'missed' if missed else 'met'}"
        spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
        print(f"| {name} | {statistics.median(measured):,.0f} | {spread} | {ratio:.2f} | {goal} |")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
