"""The difference of two plain values, field by field, with readable paths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Final

ABSENT: Final = object()
"""The value of a field that one side lacks."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field, such as `spec.template.spec.containers[agent-engine].image`, and its value on each side."""

    path: str
    before: Any
    after: Any


def field_changes(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Every field in which two values differ. Empty only if they are equal.

    Items of a list are matched by their `name`, rules with `from` or `to` by these peers, and other items by their
    content. So an inserted item is one change. Texts that are JSON objects are compared as objects.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _entries(_fields(before), _fields(after), path)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from _entries(*_keyed(before, after), path)
    elif type(before) is not type(after) or before != after:
        yield from _embedded(before, after, path) or [FieldChange(path, before, after)]


def _entries(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> Iterator[FieldChange]:
    """Compare the entries of two mappings. Each key is a part of a path: `.key` or `[key]`."""
    for key in (*before, *(key for key in after if key not in before)):
        inner = path + key if path else key.removeprefix(".")
        yield from field_changes(before.get(key, ABSENT), after.get(key, ABSENT), inner)


def _fields(value: Mapping[str, Any]) -> dict[str, Any]:
    return {f".{key}" if _WORD.fullmatch(key) else f"[{key}]": item for key, item in value.items()}


def _keyed(before: Sequence[Any], after: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key the items by identity. Align them if an item lacks an identity, identities repeat, or the order differs."""
    left, right = _named(before), _named(after)
    if left is None or right is None or [n for n in left if n in right] != [n for n in right if n in left]:
        return _aligned(before, after)
    return left, right


def _aligned(before: Sequence[Any], after: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The items that differ, by their position: `[2]`, or `[2, now 3]` if the sides have different positions."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for start, end, begin, stop in _differing(*(_texts(items) for items in (before, after))):
        for i, j in zip_longest(range(start, end), range(begin, stop)):
            key = f"[{i}, now {j}]" if i is not None and j is not None and i != j else f"[{j if i is None else i}]"
            if i is not None:
                left[key] = before[i]
            if j is not None:
                right[key] = after[j]
    return left, right


def _differing(before: list[str], after: list[str]) -> Iterator[tuple[int, int, int, int]]:
    """The ranges of both lists between their common items. The reverse comparison gives the same ranges."""
    if before > after:
        yield from ((start, end, begin, stop) for begin, stop, start, end in _differing(after, before))
        return
    for kind, *bounds in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            start, end, begin, stop = bounds
            yield start, end, begin, stop


def _texts(items: Sequence[Any]) -> list[str]:
    return [json.dumps(item, sort_keys=True) for item in items]


def _named(items: Sequence[Any]) -> dict[str, Any] | None:
    names = [_identity(item) for item in items]
    if not all(names) or len(set(names)) < len(names):
        return None
    return {f"[{name}]": item for name, item in zip(names, items, strict=True)}


def _identity(item: Any) -> str | None:
    """The name of an item, or the peers of a rule: `voice-apps/rag-engine`, `10.0.0.0/8`."""
    if not isinstance(item, Mapping):
        return None
    if isinstance(name := item.get("name"), str):
        return name
    peers = item.get("from") or item.get("to")
    return ", ".join("/".join(_leaves(peer)) for peer in peers) if isinstance(peers, list | tuple) else None


def _leaves(value: Any) -> Iterator[str]:
    """The values of a peer's selectors, or its address block. The `except` of the block is left out."""
    if isinstance(value, Mapping):
        yield from (leaf for key, inner in value.items() if key != "except" for leaf in _leaves(inner))
    elif isinstance(value, list | tuple):
        yield from (leaf for inner in value for leaf in _leaves(inner))
    else:
        yield str(value)


def _embedded(before: Any, after: Any, path: str) -> list[FieldChange]:
    """The differences of two JSON objects. Empty if a side is no JSON object, or if both objects are equal."""
    left, right = _document(before), _document(after)
    return [] if left is None or right is None else list(field_changes(left, right, path))


def _document(value: object) -> dict[str, Any] | None:
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    try:
        document = json.loads(value)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
