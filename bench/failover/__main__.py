"""`python -m bench.failover`: longest gap between two acknowledged writes through HAProxy when a primary stops.

Real Valkey servers, Sentinels and HAProxy run with the rendered files, on loopback. The goal for the
gap is Sentinel's `down-after` plus 5 s. A killed primary may lose only writes that no replica had received. A primary
that stops in an orderly way may lose none.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.arguments import add_rounds
from components.valkey.replication import DOWN_AFTER
from tests.integration.cache_clients import replicated, running_proxy, writing
from tests.stack.voiceassistant.tiers.real_cache import Member, eventually, running_cache

GOAL = DOWN_AFTER.seconds + 5


class Measured(NamedTuple):
    """One replacement of a primary."""

    gap: float
    """The longest gap between two acknowledged writes, in seconds."""
    lost: int
    """Number of acknowledged writes that the new primary does not have."""
    replicated: int
    """Number of lost writes that a replica had received."""

    @property
    def meets_goal(self) -> bool:
        """True if the gap is short enough and no replicated write is lost."""
        return self.gap <= GOAL and not self.replicated


def main() -> int:
    """Measure and print. Returns 1 if a gap misses the goal or a replicated write is lost, 2 without HAProxy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 3, "number of measurements of each way to stop the primary")
    rounds: int = parser.parse_args().rounds
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        print("haproxy is not on PATH: install the system's package", file=sys.stderr)
        return 2
    found = {name: [_measure(Path(haproxy), end) for _ in range(rounds)] for name, end in ENDS.items()}
    print(f"| how the primary stops | gaps in seconds | lost writes | goal: {GOAL:.0f} s |\n|---|---|---|---|")
    for name, measured in found.items():
        gaps = ", ".join(f"{each.gap:.1f}" for each in measured)
        lost = f"{sum(each.lost for each in measured)}, replicated {sum(each.replicated for each in measured)}"
        met = "met" if all(each.meets_goal for each in measured) else "missed"
        print(f"| {name} | {gaps} | {lost} | {met} |")
    return int(not all(each.meets_goal for measured in found.values() for each in measured))


def _measure(haproxy: Path, end: Callable[[Member], None]) -> Measured:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_cache(Path(directory)) as (nodes, _),
        running_proxy(haproxy, Path(directory, "haproxy.cfg"), nodes) as port,
    ):
        with writing(port) as writer:
            stopped = time.monotonic()
            end(nodes[0])
            eventually(lambda: [node for node in nodes[1:] if node.role == "master"])
            elected = time.monotonic()
            eventually(lambda: writer.written_after(elected + 1))
        lost = writer.lost()
        # An orderly stop replicates every write before the primary stops.
        had = lost if end is Member.stop_in_order else replicated(lost, stopped, elected)
        return Measured(writer.gap, len(lost), len(had))


def _restart_immediately(node: Member) -> None:
    node.stop()
    node.restart()


ENDS: dict[str, Callable[[Member], None]] = {
    "killed": Member.stop,
    "killed, and restarted immediately": _restart_immediately,
    "stopped in an orderly way": Member.stop_in_order,
}


if __name__ == "__main__":
    sys.exit(main())
