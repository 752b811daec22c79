"""Arguments that can be sent only once: iterators, asynchronous iterators and open files, also inside containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

LARGEST = 100
"""Largest container that is searched, in elements. A larger one holds data."""
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_CONTAINERS = (list, tuple, set, frozenset)


def can_repeat(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """True if a call with these arguments can be repeated after a first use."""
    return _all_repeat(args) and (not kwargs or _all_repeat(kwargs.values()))


def _all_repeat(arguments: Iterable[Any]) -> bool:
    return all(type(argument) in _PLAIN or _repeats(argument) for argument in arguments)


def _repeats(argument: Any) -> bool:
    if isinstance(argument, _CONTAINERS):
        return len(argument) > LARGEST or _all_repeat(argument)
    if isinstance(argument, dict):
        return len(argument) > LARGEST or _all_repeat(argument.values())
    return not isinstance(argument, Iterator | AsyncIterator)
