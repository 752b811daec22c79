"""The public API of the distributions: the names that a module lists in `__all__`.

`make docs` writes the list to docs/api.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import griffe

from stack.model.settings import ROOT

DOCUMENT = ROOT / "docs" / "api.md"
DISTRIBUTIONS = {
    "voice_policies": ROOT / "policies",
    **{name: ROOT / "runtime" / name for name in ("voice_runtime", "voice_saga", "voice_models", "voice_reference")},
}
HEAD = """# Public API

<!-- Written by `make docs`. -->

A name is public if its module lists it in `__all__`. Import it from that module. Every other name is private: it may
change in any version. If a module needs an extra, the first paragraph below the module's name says so.
"""


def modules(distribution: str) -> Iterator[griffe.Module]:
    """The public modules of a distribution, each after its package."""
    loaded = griffe.load(distribution, search_paths=[DISTRIBUTIONS[distribution]])
    assert isinstance(loaded, griffe.Module)
    yield from _public(loaded)


def _public(module: griffe.Module) -> Iterator[griffe.Module]:
    if module.exports is not None:
        yield module
    for name in sorted(module.modules):
        yield from _public(module.modules[name])


def _paragraph(documented: griffe.Object | griffe.Alias) -> str:
    return " ".join(documented.docstring.value.split("\n\n")[0].split()) if documented.docstring else ""


def summary(documented: griffe.Object | griffe.Alias) -> str:
    """The first sentence of a docstring; empty without one."""
    return re.split(r"(?<=\.)\s", _paragraph(documented), maxsplit=1)[0]


def _public_object(module: griffe.Module, name: str) -> griffe.Object | griffe.Alias:
    """The object of a public name. If it comes from a submodule of the same name, griffe returns the submodule."""
    found: griffe.Object | griffe.Alias = module[name]
    return found[name] if found.is_module and name in found.members else found


def document() -> str:
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    for distribution in DISTRIBUTIONS:
        yield f"## {distribution}\n"
        for module in modules(distribution):
            yield f"### `{module.path}`\n\n{_paragraph(module)}\n"
            yield "| name | meaning |"
            yield "|---|---|"
            for name in sorted(map(str, module.exports or ())):
                yield f"| `{name}` | {summary(_public_object(module, name)).replace('|', '&#124;')} |"
            yield ""


if __name__ == "__main__":
    DOCUMENT.write_text(document())
