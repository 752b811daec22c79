"""Times `voice render` and its peers on generated platforms of 16, 160 and 1,600 services. Prints Markdown tables.

    python -m bench.render [--rounds 9]

Needs `go`, `node` and `npm`; the first run builds and installs the peers. If `/dev/shm` exists, `voice` and its peers
write to it, so that the bench does not measure the disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.arguments import add_rounds
from bench.render import peers
from bench.render.processes import Contestant, Measured, measure, stdout_of
from stack.output.tree import INDEX

COUNTS = (16, 160, 1600)


def main() -> None:
    """For each number of services: prepare the inputs, measure, print a table, and compare the outputs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_rounds(parser, 9, "rounds with 16 services; a larger platform gets a third of these rounds, but at least 3")
    rounds: int = parser.parse_args().rounds
    peers.install()
    memory = Path("/dev/shm")  # noqa: S108 - the bench creates a directory in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        for count in COUNTS:
            out = Path(directory, str(count))
            contestants = [peers.helm(count, out), peers.ours(count, out)]
            if count == COUNTS[0]:
                contestants += peers.others(count, out)
            _prepare(count)
            _print(count, contestants, measure(contestants, rounds if count == COUNTS[0] else max(3, rounds // 3)))
            _refuse_unequal(contestants)
            if count == COUNTS[0]:
                _refuse_unlike(*contestants[:2])


def _prepare(count: int) -> None:
    """Prepare the peers' inputs.

    Separate processes prepare them, so that this process stays small: the measured peak memory of each child process
    includes the memory of this process.
    """
    tree = peers.BUILD / str(count)
    for module, *arguments in (
        ("bench.render.generated", str(count), "-o", str(tree)),
        ("bench.render.chart", str(tree), f"{tree}-chart"),
        ("bench.render.objects", str(tree), f"{tree}.json"),
    ):
        subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def _print(count: int, contestants: Sequence[Contestant], measured: Sequence[Measured]) -> None:
    print(f"\n| {count} services | seconds | CPU seconds | MiB | × helm |\n|---|---|---|---|---|")
    for contestant, one in zip(contestants, measured, strict=True):
        ratio = one.seconds / measured[0].seconds
        print(f"| {contestant.name} | {one.seconds:.3f} | {one.cpu_seconds:.3f} | {one.mebibytes:.0f} | {ratio:.2f} |")
    sys.stdout.flush()


def _refuse_unequal(contestants: Sequence[Contestant]) -> None:
    """Refuse outputs with different numbers of objects, because their times cannot be compared."""
    outs = [str(contestant.out) for contestant in contestants if contestant.name != "Pulumi, mocks"]
    subprocess.run([sys.executable, "-m", "bench.render.equal", *outs], check=True)  # noqa: S603


def _refuse_unlike(helm: Contestant, ours: Contestant) -> None:
    """Refuse a chart whose objects differ from ours in any field."""
    tree = helm.out.with_name("helm-tree")
    (tree / "manifests").mkdir(parents=True)
    (tree / INDEX).touch()
    stdout_of(helm.out).rename(tree / "manifests/all.yaml")
    subprocess.run([sys.executable, "-m", "stack.cli", "diff", str(tree), str(ours.out)], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
