"""Arguments that can be sent only once: iterators and open files, also inside containers and dataclasses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

LARGEST = 100
"""Number of elements of the largest container that is searched. A larger container is taken for data."""
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


def can_repeat(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """True if a call with these arguments can be made again after a first attempt."""
    return _all_repeat(args) and (not kwargs or _all_repeat(kwargs.values()))


def _all_repeat(arguments: Iterable[Any]) -> bool:
    return all(type(argument) in _PLAIN or _repeats(argument) for argument in arguments)


def _repeats(argument: Any) -> bool:
    if isinstance(argument, Iterator | AsyncIterator):
        return False
    if is_dataclass(argument) and not isinstance(argument, type):
        return _all_repeat(getattr(argument, field.name) for field in fields(argument))
    if not isinstance(argument, Collection) or len(argument) > LARGEST:
        return True
    return _all_repeat(argument) and (not isinstance(argument, Mapping) or _all_repeat(argument.values()))
