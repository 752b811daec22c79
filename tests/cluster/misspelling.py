from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]


def keys_of(document: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield (*path, key)
            yield from keys_of(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from keys_of(value, (*path, index))


def misspelt(document: Any, path: KeyPath) -> Any:
    """The document with an added letter at the end of one key."""
    first, *rest = path
    if isinstance(document, list):
        return [misspelt(value, tuple(rest)) if index == first else value for index, value in enumerate(document)]
    return {
        (f"{key}x" if key == first and not rest else key): (
            misspelt(value, tuple(rest)) if key == first and rest else value
        )
        for key, value in document.items()
    }
