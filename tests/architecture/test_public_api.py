from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from stack.model.settings import ROOT
from tests.architecture.public_api import DISTRIBUTIONS, DOCUMENT, document, modules, summary

MODULES = {module.path: module for distribution in DISTRIBUTIONS for module in modules(distribution)}
EXPORTS = {path: {*map(str, module.exports or ())} for path, module in MODULES.items()}


def test_the_document_lists_the_current_api() -> None:
    assert DOCUMENT.read_text() == document(), "run `make docs`"


@pytest.mark.parametrize("path", MODULES)
def test_exported_names_exist_and_are_documented(path: str) -> None:
    module = importlib.import_module(path)
    assert set(module.__all__) == EXPORTS[path]
    assert [name for name in EXPORTS[path] if not hasattr(module, name)] == []
    assert [name for name in sorted(EXPORTS[path]) if not summary(MODULES[path][name])] == []


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_package_exports_every_visible_name(distribution: str) -> None:
    names = vars(importlib.import_module(distribution)).items()
    visible = {name for name, value in names if not name.startswith("_") and not isinstance(value, ModuleType)}
    assert visible == EXPORTS.get(distribution, set())


def importing(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    for file in folder.rglob("*.py"):
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def documented() -> Iterator[tuple[str, ast.Module]]:
    for file in (ROOT / "docs").glob("*.md"):
        for example in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL):
            yield str(file.relative_to(ROOT)), ast.parse(example)


def imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each import from a distribution."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in DISTRIBUTIONS:
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.partition(".")[0] in DISTRIBUTIONS)


USERS: dict[str, Callable[[], Iterator[tuple[str, ast.Module]]]] = {
    "docs": documented,
    **{
        name: partial(importing, folder)
        for name, folder in (("stack", ROOT / "stack"), ("components", ROOT / "components"), *DISTRIBUTIONS.items())
    },
}


@pytest.mark.parametrize("user", USERS)
def test_code_imports_only_the_public_names_of_other_distributions(user: str) -> None:
    private = [
        f"{place} imports {name} from {module}"
        for place, tree in USERS[user]()
        for module, name in imports(tree)
        if module.partition(".")[0] != user and name not in EXPORTS.get(module, set())
    ]
    assert private == []
