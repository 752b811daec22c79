"""`voice docs` and `voice schema`: write the generated files of the repository."""

from __future__ import annotations

import argparse
from pathlib import Path

from stack.cli.options import Commands, add_command
from stack.cli.status import CLEAN


def add_to(commands: Commands) -> None:
    """Adds the commands."""
    add_command(commands, "docs", _docs, "Write docs/architecture.md, docs/alerts.md and docs/images.md.")
    add_command(commands, "schema", _schema, "Write policies/policy-bundle.schema.json.")


def _docs(options: argparse.Namespace) -> int:
    from stack.output.documents import (  # noqa: PLC0415
        ALERTS,
        ARCHITECTURE,
        IMAGES,
        alert_list,
        architecture,
        third_party_images,
    )

    tenant = options.tenant()
    _write(ARCHITECTURE, architecture(tenant))
    _write(ALERTS, alert_list(tenant.alerting))
    return _write(IMAGES, third_party_images())


def _schema(_options: argparse.Namespace) -> int:
    from stack.output.documents import SCHEMA, bundle_schema  # noqa: PLC0415

    return _write(SCHEMA, bundle_schema())


def _write(path: Path, text: str) -> int:
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}")
    return CLEAN
