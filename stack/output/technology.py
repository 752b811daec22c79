"""The technology stack: images, operators and libraries, with versions and licences."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from typing import NamedTuple

from voice_policies import Fault, InvalidInputError

from components import images
from stack.deploy.operators import OPERATORS
from stack.model.settings import ROOT
from stack.output.markdown import filled


class Library(NamedTuple):
    """A direct dependency."""

    name: str
    version: str
    licence: str
    used_by: tuple[str, ...]
    """The distributions that depend on it."""


def technology() -> str:
    """The text of `docs/technology.md`."""
    known = sorted(images.KNOWN, key=lambda image: image.reference)
    return filled("technology.md.j2", images=known, operators=OPERATORS, libraries=list(libraries()))


def libraries() -> Iterator[Library]:
    """The direct dependencies of every distribution, with the metadata of the installed packages.

    Raises `InvalidInputError` if a dependency is not installed.
    """
    users: dict[str, list[str]] = {}
    for path in (ROOT, ROOT / "policies", *sorted((ROOT / "runtime").iterdir())):
        if (file := path / "pyproject.toml").exists():
            project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
            optional = project.get("optional-dependencies", {}).values()
            for requirement in {*project.get("dependencies", ()), *(each for extra in optional for each in extra)}:
                users.setdefault(re.split(r"[^A-Za-z0-9._-]", requirement)[0], []).append(project["name"])
    others = (name for name in sorted(users) if not name.startswith("voice-"))
    for name in others:
        try:
            found = metadata(name)
        except PackageNotFoundError:
            raise InvalidInputError("voice docs", [Fault(name, "is not installed", "run `make docs`")]) from None
        stated = (found.get_all(field, ()) or () for field in ("License-Expression", "Classifier", "License"))
        licence = next(each.rpartition(" :: ")[2] for values in stated for each in values if _is_licence(each))
        yield Library(name, found["Version"], licence, tuple(sorted(set(users[name]))))


def _is_licence(value: str) -> bool:
    """True for a licence. False for a classifier that states something else."""
    return " :: " not in value or value.startswith("License")
