from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.kubernetes.__main__ import TYPES
from stack.model.settings import ROOT

LONGEST_FUNCTION, LONGEST_FILE = 60, 400
"""Limits in lines, docstrings included."""
NINE_IN_TEN = 16
"""At least nine in ten functions of the runtime have at most this many lines, as in comparable libraries."""
PARTS = ("stack", "components", "policies", "runtime")


def sources(part: str) -> Iterator[Path]:
    """Every file that people write. The types of Kubernetes are generated."""
    return (path for path in (ROOT / part).rglob("*.py") if path != TYPES and "tests" not in path.parts)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1


@pytest.mark.parametrize("part", PARTS)
def test_no_function_and_no_file_is_too_long(part: str) -> None:
    files = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(part)}
    assert files
    assert {name: lines for name, lines in files.items() if lines > LONGEST_FILE} == {}
    long = {name: lines for path in sources(part) for name, lines in functions(path) if lines > LONGEST_FUNCTION}
    assert long == {}


def test_nine_in_ten_functions_of_the_runtime_are_short() -> None:
    lengths = [lines for path in sources("runtime") for _, lines in functions(path)]
    short = sum(lines <= NINE_IN_TEN for lines in lengths)
    assert short >= 0.9 * len(lengths), f"{short} of {len(lengths)}"
