"""Refuses outputs that do not contain the same number of objects of each kind.

    python -m bench.render.equal OUT...

OUT is a directory of YAML files. If the directory does not exist, the program reads the file `OUT.stdout`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.render.processes import stdout_of

_KIND = re.compile(r'^"?kind"?: "?(\w+)', re.MULTILINE)


def kinds(out: Path) -> Counter[str]:
    """The number of objects of each kind, counted by their top-level `kind:` lines."""
    return Counter(kind for file in _files(out) for kind in _KIND.findall(file.read_text(encoding="utf-8")))


def _files(out: Path) -> Iterator[Path]:
    if out.is_dir():
        yield from out.glob("**/*.yaml")
    else:
        yield stdout_of(out)


def main() -> None:
    """Compare all outputs with the first."""
    outs = [Path(argument) for argument in sys.argv[1:]]
    counted = [kinds(out) for out in outs]
    for out, found in zip(outs, counted, strict=True):
        if not found or found != counted[0]:
            sys.exit(f"{out} contains {dict(found)}, but {outs[0]} contains {dict(counted[0])}")


if __name__ == "__main__":
    main()
