from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.redis_servers import single as single_server

PROCESSES, RATE, BURST, SECONDS = 8, 500, 1000, 2.0
HAMMER = [sys.executable, "-m", "bench.shared_state.hammer"]


def _hammered(directory: Path, lease: int) -> tuple[int, float, float]:
    """Let the processes send requests to one shared limit as fast as they can.

    Returns the number of admissions, and a lower and an upper bound of the number that the limit admits. The lower
    bound is the limit for the shortest possible time of the store's decisions: from the first answer to the last
    request. The upper bound is the limit for the longest possible time: from the start to the last answer.

    On a busy machine the processes may be too slow to request all admissions, so at the end each process takes the
    remaining admissions.
    """
    with single_server(directory) as server:
        command = [*HAMMER, server.url, f"{RATE}/s", str(BURST), str(lease), str(SECONDS)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    assert all(each["without_store"] == 0 and each["admitted"] > 0 for each in found)
    shortest = max(each["asked"] for each in found) - min(each["first_answer"] for each in found)
    longest = max(each["answered"] for each in found) - min(each["begun"] for each in found)
    return (
        int(sum(each["admitted"] + each["remaining"] for each in found)),
        BURST + RATE * shortest,
        BURST + RATE * longest,
    )


def test_eight_processes_together_admit_the_limit_with_an_error_below_one_percent(tmp_path: Path) -> None:
    admitted, least, most = _hammered(tmp_path, lease=1)
    assert 0.99 * least <= admitted <= 1.01 * most, f"{admitted} of {least:.0f} to {most:.0f}"


def test_leases_reduce_the_admissions_by_at_most_the_size_of_one_lease_per_process(tmp_path: Path) -> None:
    lease = 20
    admitted, least, most = _hammered(tmp_path, lease)
    assert 0.99 * least - PROCESSES * lease <= admitted <= 1.01 * most, f"{admitted} of {least:.0f} to {most:.0f}"
