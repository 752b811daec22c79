"""Find the sentences that `make lint` refuses: riddles that a machine can recognize.

python -m tests.architecture.plain_english
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROSE = (".py", ".md", ".j2", ".toml", ".yaml", ".yml", "Makefile")
GENERATED = ("tests/snapshots/", "components/kubernetes/types.py", "tests/architecture/")
"""Texts that follow from others, and this check with its own examples."""
RIDDLE = re.compile(r"(What|Who|Whose|Whoever|Whatever|Likewise)\b|Whether\b")
IDIOMS = (
    re.compile(r"\b(is|are|was|were) given up\b"),
    re.compile(r"\bbegun anew\b"),
    re.compile(r"\bthe whole:"),
    re.compile(r"\b(limit|time) that is none\b"),
    re.compile(r"\bis there before it\b"),
    re.compile(r"\bask(s|ed)? it from\b"),
    re.compile(r"^\s*(#|\"\"\")\s*Likewise\b"),
)
MOST_BOOLEANS = 20
"""Docstrings that may begin with `Whether`. Each describes a boolean."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the place where it stands."""

    path: str
    line: int
    text: str
    is_boolean: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def docstrings(path: str, source: str) -> Iterator[Sentence]:
    """Every docstring of a module, its classes, functions and attributes, with its first line."""
    for owner in ast.walk(ast.parse(source)):
        body: list[ast.stmt] = getattr(owner, "body", []) if not isinstance(owner, ast.Lambda | ast.IfExp) else []
        for before, statement in zip([owner, *body], body, strict=False):
            if isinstance(statement, ast.Expr) and isinstance(value := statement.value, ast.Constant):
                text = str(value.value).strip()
                yield Sentence(path, statement.lineno, text.partition("\n")[0], is_boolean=_is_boolean(before))


def _is_boolean(owner: ast.AST) -> bool:
    """True for a function that returns a boolean and for an attribute that is one."""
    annotation = getattr(owner, "returns", None) or getattr(owner, "annotation", None)
    return annotation is not None and re.match(r"(bool|TypeIs|TypeGuard)\b", ast.unparse(annotation)) is not None


def refused(sentences: list[Sentence]) -> list[Sentence]:
    """The docstrings that begin like a riddle. `Whether` may begin the docstring of a boolean, at most twenty times."""
    found = [sentence for sentence in sentences if RIDDLE.match(sentence.text)]
    booleans = [each for each in found if each.is_boolean and each.text.startswith("Whether")]
    return [each for each in found if each not in booleans] + booleans[MOST_BOOLEANS:]


def idioms(path: str, source: str) -> Iterator[Sentence]:
    """The lines that use an idiom instead of the field's words."""
    for number, line in enumerate(source.splitlines(), 1):
        if any(idiom.search(line) for idiom in IDIOMS):
            yield Sentence(path, number, line.strip())


def findings() -> list[Sentence]:
    """Every refused sentence of the repository."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    written: list[Sentence] = []
    found: list[Sentence] = []
    for path in listed.splitlines():
        if path.endswith(PROSE) and not path.startswith(GENERATED) and (ROOT / path).is_file():
            source = (ROOT / path).read_text(encoding="utf-8")
            found += idioms(path, source)
            if path.endswith(".py"):
                written += docstrings(path, source)
    return refused(written) + found


if __name__ == "__main__":
    found = findings()
    sys.stdout.writelines(f"{sentence}\n" for sentence in found)
    sys.exit(
        f"{len(found)} sentences to say plainly: begin with a noun or a verb, and use the field's words" if found else 0
    )
