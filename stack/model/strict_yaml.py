"""YAML files that people edit, read so that nothing in them is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from voice_policies import Fault, InvalidInputError

__all__ = ["read_documents"]


def read_yaml(path: Path) -> Any:
    """The one document of a file; raises `InvalidInputError` where it cannot be read or a key stands twice."""
    document, faults = read_with_faults(path)
    if faults:
        raise InvalidInputError(path.name, faults)
    return document


def read_with_faults(path: Path) -> tuple[Any, list[Fault]]:
    """The one document of a file, and a fault for each key that stands twice; raises where it cannot be read."""
    with _loader(path) as loader:
        return loader.get_single_data(), loader.faults


def read_documents(path: Path) -> list[Any]:
    """Every document of a file; raises as `read_yaml` does."""
    documents = []
    with _loader(path) as loader:
        while loader.check_data():  # type: ignore[no-untyped-call]  # the stubs leave it out
            documents.append(loader.get_data())
    if loader.faults:
        raise InvalidInputError(path.name, loader.faults)
    return documents


@contextmanager
def _loader(path: Path) -> Iterator[_StrictLoader]:
    try:
        yield _StrictLoader(path)
    except OSError as error:
        raise InvalidInputError(path.name, [Fault("", "cannot be read", error.strerror or str(error))]) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInputError(path.name, [Fault("", "is not YAML", " ".join(str(error).split()))]) from None


class _StrictLoader(yaml.CSafeLoader):
    """Notes each key that stands twice, where YAML would silently keep the last value."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.read_bytes())
        self.faults: list[Fault] = []
        self._file = path.name

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT002 - PyYAML's own signature
        found: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                source = f"{self._file}:{key.start_mark.line + 1}"
                self.faults.append(Fault("", f"key {key.value!r} stands twice", "keep one of them", source))
            found.add(key.value)
        return super().construct_mapping(node, deep)
