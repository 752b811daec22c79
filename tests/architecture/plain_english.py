"""Finds riddles and long sentences that a machine can recognize, in docstrings, comments, messages and documents.

`make lint` runs this check: python -m tests.architecture.plain_english
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stack.model.settings import ROOT

PROSE = (".py", ".md", ".j2", ".toml", ".yaml", ".yml", ".go", "Makefile")
"""Endings of the files that hold sentences."""
EXEMPT = (
    "tests/snapshots/",  # rendered
    "components/kubernetes/types.py",  # generated
    "tests/architecture/plain_english.py",  # names the idioms
    "tests/architecture/test_plain_english.py",  # contains the idioms on purpose
)
OPENING = re.compile(r"(What|Who|Whose|Whom|Whoever|Whatever|Whether|Likewise)\b")
"""Refused first words of a docstring. A docstring begins with a noun or a verb, or with `True if` for a boolean."""
IDIOMS = re.compile(
    r"(\b(is|are|was|were) given up\b(?! by)"
    r"|\banew\b"
    r"|\bthe whole:"
    r"|\b(limit|time) that is none\b"
    r"|\btime that does not come\b"
    r"|\bmakes nothing: "
    r"|\bis there before it\b"
    r"|\bask(s|ed)? it from\b"
    r"|\bthe least replicas together\b"
    r"|\banother one is a new one\b"
    r"|# likewise\b"
    r"|\blikewise\.)",
    re.IGNORECASE,
)
"""Refused phrases of our own. The field has words for them, for example `exempt` for `is given up`."""


MOST_WORDS = 25
"""Largest number of words of a sentence. ASD-STE100, Simplified Technical English, has this limit for descriptions."""
CODE = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)|\{\{.*?\}\}")
"""Code, a link, or a value of a template. It counts as no word."""
WORD = re.compile(r"\S*[A-Za-z]\S*")
SKIPPED = re.compile(r"```.*?```|<!--.*?-->|\{[%#].*?[%#]\}|[^\n]*[─│┌└▶▼][^\n]*", re.DOTALL)
"""Text that is not checked: code blocks, comments of a document, statements of a template, and lines of a drawing."""
BLOCK = re.compile(r"\n\s*\n|\n\s*(?=[-*|>#]|\d+\. )")
"""The end of a paragraph, or the beginning of an item, a row or a title."""
COMMENT = re.compile(r"(?:^[ \t]*(?:#|//) .*\n)+", re.MULTILINE)
MARK = re.compile(r"^[ \t]*(?:#|//) ", re.MULTILINE)
END = re.compile(r"(?<=[.!?:;])[\"')]*\s+|\s+\|\s+")
"""The end of a sentence or a cell. A colon or semicolon also ends a sentence."""


@dataclass(frozen=True, slots=True)
class Riddle:
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def riddles(path: str, source: str) -> Iterator[Riddle]:
    if path.endswith(".py"):
        first_lines = ((line, text.partition("\n")[0]) for line, text in _docstrings(source))
        yield from (Riddle(path, line, first) for line, first in first_lines if OPENING.match(first))
    for number, written_line in enumerate(source.splitlines(), 1):
        if IDIOMS.search(written_line):
            yield Riddle(path, number, written_line.strip())
    for line, text in _texts(path, source):
        yield from (Riddle(path, line, sentence) for sentence in long_sentences(text))


def long_sentences(text: str) -> Iterator[str]:
    """The sentences with more than `MOST_WORDS` words."""
    plain = CODE.sub("`", SKIPPED.sub("\n\n", text))
    for block in BLOCK.split(plain):
        yield from (each for each in END.split(" ".join(block.split())) if len(WORD.findall(each)) > MOST_WORDS)


def _texts(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring and comment, or of a whole document."""
    if path.endswith((".md", ".j2")):
        yield 1, source
        return
    if path.endswith(".py"):
        yield from _docstrings(source)
    for block in COMMENT.finditer(source):
        yield source.count("\n", 0, block.start()) + 1, MARK.sub("", block[0])


def _docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring: of the module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def written(root: Path) -> Iterator[str]:
    """The hand-written files of a repository, except those in `EXEMPT`."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    for path in listed.splitlines():
        if path.endswith(PROSE) and not path.startswith(EXEMPT) and (root / path).is_file():
            yield path


def main() -> int:
    """Print every riddle of the repository. The exit code is 1 if there is a riddle."""
    found = [riddle for path in written(ROOT) for riddle in riddles(path, (ROOT / path).read_text(encoding="utf-8"))]
    sys.stdout.writelines(f"{riddle}\n" for riddle in found)
    if found:
        advice = "begin with a noun or a verb, use the field's own words, and split long sentences"
        sys.stderr.write(f"{len(found)} riddles: {advice}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
