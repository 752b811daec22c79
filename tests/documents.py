from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.model.settings import ROOT

FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
DATA = {"", "json", "mermaid", "yaml"}
"""Languages of blocks that are shown, not run."""


@dataclass(frozen=True)
class Block:
    document: str
    language: str
    text: str
    not_run: str | None
    """The reason not to run the block, from the comment above it."""

    @property
    def is_for_running(self) -> bool:
        """True for code and commands, false for data and for output without a command."""
        return self.language not in DATA and (self.language != "console" or any(self.commands))

    @property
    def commands(self) -> Iterator[str]:
        """The lines that a reader types."""
        if self.language == "console":
            return (line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ "))
        return iter(self.text.splitlines() if self.language == "sh" else ())


def documents() -> list[Path]:
    packages = (ROOT / "policies", *(ROOT / "runtime").iterdir())
    readmes = (path / "README.md" for path in (ROOT, *packages))
    return [*filter(Path.exists, readmes), ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path: Path) -> Iterator[Block]:
    for found in FENCE.finditer(path.read_text(encoding="utf-8")):
        name = str(path.relative_to(ROOT))
        yield Block(name, found["language"], found["text"], found["reason"])
