from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.model.settings import ROOT

CLOSED = (
    "components",
    "stack.model",
    "stack.audit",
    "stack.deploy",
    "stack.output",
)
"""Other packages may use only the exported names of these packages."""
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("components", "stack", "bench")
    for path in (ROOT / folder).rglob("*.py")
}


def package_of(module: str) -> str:
    return next((package for package in CLOSED if module == package or module.startswith(f"{package}.")), module)


def used(user: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of everything that a module uses from another package, by import or as `module.name`."""
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (whole := f"{node.module}.{alias.name}") in FILES:
                    modules[alias.asname or alias.name] = whole
                elif node.module in FILES and package_of(node.module) != package_of(user):
                    yield node.module, alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            module = modules[node.value.id]
            if package_of(module) != package_of(user):
                yield module, node.attr


def uses() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for user, path in FILES.items():
        for module, name in used(user, ast.parse(path.read_text(encoding="utf-8"))):
            if package_of(module) in CLOSED:
                found[module].add(name)
    return found


USES = uses()


@pytest.mark.parametrize("module", sorted(USES))
def test_a_module_exports_the_names_that_other_packages_use_and_no_others(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert set(exported) == USES[module]


def test_a_module_that_no_other_package_uses_exports_nothing() -> None:
    closed = {name: path for name, path in FILES.items() if package_of(name) in CLOSED and name not in USES}
    exporting = [name for name, path in closed.items() if "\n__all__ = " in Path(path).read_text(encoding="utf-8")]
    assert exporting == []
