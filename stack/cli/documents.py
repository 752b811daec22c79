"""`voice docs` and `voice schema`: write the generated files of the repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack.cli.options import Commands, add_command, platform_of
from stack.cli.status import CLEAN


def add_to(commands: Commands) -> None:
    """Add the commands."""
    add_command(commands, "docs", _docs, "Write the generated documents in docs/.")
    add_command(commands, "schema", _schema, "Write policies/policy-bundle.schema.json.")


def _docs(options: argparse.Namespace) -> int:
    from stack.model.settings import environments  # noqa: PLC0415
    from stack.output.documents import documents  # noqa: PLC0415

    for path, text in documents(options.tenant(), [platform_of(options, name) for name in environments()]):
        _write(path, text)
    return CLEAN


def _schema(_options: argparse.Namespace) -> int:
    from stack.output.documents import SCHEMA, bundle_schema  # noqa: PLC0415

    return _write(SCHEMA, bundle_schema())


def _write(path: Path, text: str) -> int:
    from stack.model.atomic_write import write_atomically  # noqa: PLC0415

    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    print(f"wrote {path.name}")
    return CLEAN
