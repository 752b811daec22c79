"""YAML files that people edit, read so that nothing in them is lost in silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from voice_policies import Fault, InvalidInputError


def read_yaml(path: Path) -> Any:
    """The one document of a file; raises `InvalidInputError` where it cannot be read or a key stands twice."""
    with _readable(path):
        return yaml.load(path.read_bytes(), Loader=_StrictLoader)  # noqa: S506 - a safe loader, stricter still


def read_documents(path: Path) -> list[Any]:
    """Every document of a file; raises as `read_yaml` does."""
    with _readable(path):
        return list(yaml.load_all(path.read_bytes(), Loader=_StrictLoader))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInputError(path.name, [Fault("", "cannot be read", error.strerror or str(error))]) from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInputError(path.name, [Fault("", "is not YAML", " ".join(str(error).split()))]) from None


class _StrictLoader(yaml.CSafeLoader):
    """Refuses a key that stands twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT002 - PyYAML's own signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)
