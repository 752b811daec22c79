"""Arguments that can be sent only once: iterators and open files, also in containers, dataclasses and partials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

LARGEST = 100
"""Largest container that is searched, in elements. A larger container counts as data that can be sent again."""
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})


def can_repeat(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """True if a call with these arguments can be made again after a first attempt."""
    return _all_repeat(args) and (not kwargs or _all_repeat(kwargs.values()))


def can_call_again(fn: Callable[..., Any]) -> bool:
    """False if `fn` is a `partial` with an argument that can be sent only once."""
    return not isinstance(fn, partial) or _all_repeat((fn,))


def _all_repeat(arguments: Iterable[Any]) -> bool:
    """True if each argument can be sent again.

    The search uses no recursion, because arguments may be nested deeply, or refer to each other in a circle.
    """
    waiting = [argument for argument in arguments if type(argument) not in _PLAIN]
    seen: dict[int, Any] = {}
    while waiting:
        argument = waiting.pop()
        if id(argument) in seen:
            continue
        if isinstance(argument, Iterator | AsyncIterator) or _is_file(argument):
            return False
        seen[id(argument)] = argument
        waiting += [part for part in _parts(argument) if type(part) not in _PLAIN]
    return True


def _is_file(argument: Any) -> bool:
    """True for an object with the methods of an open file. A file of `NamedTemporaryFile` is not an `Iterator`."""
    return hasattr(argument, "read") and any(hasattr(argument, name) for name in ("seek", "__iter__", "__aiter__"))


def _parts(argument: Any) -> Iterable[Any]:
    if isinstance(argument, partial):
        return (argument.func, *argument.args, *argument.keywords.values())
    if is_dataclass(argument) and not isinstance(argument, type):
        return (getattr(argument, field.name) for field in fields(argument))
    if not isinstance(argument, Collection) or len(argument) > LARGEST:
        return ()
    return (*argument, *argument.values()) if isinstance(argument, Mapping) else argument
