"""Writes a rendered tree as one JSON file: every object with its component.

python -m bench.render.objects build/bench/render/16 build/bench/render/16.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stack.model.strict_yaml import read_documents


def main() -> None:
    """Read the tree, and write the file."""
    tree, path = map(Path, sys.argv[1:])
    objects = [
        {"component": file.stem, **document}
        for file in sorted(tree.glob("manifests/**/*.yaml"))
        for document in read_documents(file)
    ]
    path.write_text(json.dumps(objects), encoding="utf-8")


if __name__ == "__main__":
    main()
