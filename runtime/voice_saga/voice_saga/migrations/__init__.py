"""The tables of sagas as SQL scripts. Apply them in the order of their names; applying them again changes nothing."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

__all__ = ["scripts"]


def scripts(database: Literal["postgresql", "sqlite"]) -> dict[str, str]:
    """Every script of one database, by file name."""
    directory = files(__name__) / database
    return {
        script.name: script.read_text(encoding="utf-8") for script in sorted(directory.iterdir(), key=lambda s: s.name)
    }
