"""Times whole processes. Each round runs every contestant once, so that other load affects all of them alike."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Contestant:
    """A command. It writes to `out` or to its standard output, which goes to the file `stdout_of(out)`."""

    name: str
    command: Sequence[str]
    out: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, or the medians over the rounds."""

    seconds: float
    """Time from start to end."""
    cpu_seconds: float
    """User and system time, summed over all cores."""
    mebibytes: float
    """Peak resident set size."""


def stdout_of(out: Path) -> Path:
    """The file `OUT.stdout` beside `out`."""
    return out.with_name(f"{out.name}.stdout")


def measure(contestants: Sequence[Contestant], rounds: int) -> list[Measured]:
    """Run all contestants once to fill the disk cache. Then run `rounds` rounds. Only one contestant runs at a time.

    Raises `CalledProcessError` if a contestant fails.
    """
    runs: list[list[Measured]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for contestant, measured in zip(contestants, runs, strict=True):
            run = _run(contestant)
            if number:
                measured.append(run)
    return [_median(measured) for measured in runs]


def _run(contestant: Contestant) -> Measured:
    shutil.rmtree(contestant.out, ignore_errors=True)
    contestant.out.parent.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **contestant.environment}
    with stdout_of(contestant.out).open("wb") as stdout:
        started = time.perf_counter()
        process = subprocess.Popen(contestant.command, stdout=stdout, env=variables)  # noqa: S603 - the bench's own commands
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, contestant.command)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _median(runs: Sequence[Measured]) -> Measured:
    return Measured(
        statistics.median(run.seconds for run in runs),
        statistics.median(run.cpu_seconds for run in runs),
        statistics.median(run.mebibytes for run in runs),
    )
