"""Writes a file atomically: readers and later runs find the earlier file or the new file, never a partial file."""

from __future__ import annotations

import os
from pathlib import Path

from voice_policies import Fault, InvalidInputError

__all__ = ["write_atomically"]


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to a file beside `path`, and rename it to `path`.

    Raises `InvalidInputError` if the file cannot be written. Then the earlier file stays.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105 - the documentation of os.replace promises that it is atomic
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InvalidInputError(path.name, [Fault("", "cannot be written", error.strerror or str(error))]) from None
