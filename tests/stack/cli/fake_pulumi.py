"""A fake of `pulumi config set-all`. It leaves its arguments and the unencrypted secrets beside the stack's file."""

import csv
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    arguments = sys.argv[1:]
    folder = Path(arguments[arguments.index("--cwd") + 1])
    stack = arguments[arguments.index("--stack") + 1]
    file = folder / f"Pulumi.{stack}.yaml"
    (folder / "arguments.json").write_text(json.dumps(arguments))
    if (folder / "refuses").exists():
        sys.exit(f"error: no stack named '{stack}' found")
    document = yaml.safe_load(file.read_text())
    seen = {}
    for path, value in _pairs("PULUMI_OPTION_SECRET"):
        seen[path] = value
        _set(document["config"], path, {"secure": "v1:encrypted"})
    for path, value in _pairs("PULUMI_OPTION_PLAINTEXT"):
        _set(document["config"], path, value)
    file.write_text(yaml.safe_dump(document))
    (folder / "values.json").write_text(json.dumps(seen))


def _pairs(variable: str) -> list[tuple[str, str]]:
    (record,) = csv.reader(io.StringIO(os.environ[variable]))
    return [(field.partition("=")[0], field.partition("=")[2]) for field in record]


def _set(config: dict[str, Any], path: str, value: object) -> None:
    *above, last = path.split(".")
    for part in above:
        config = config.setdefault(part, {})
    config[last] = value


if __name__ == "__main__":
    main()
