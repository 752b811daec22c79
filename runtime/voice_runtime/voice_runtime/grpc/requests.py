"""The requests of one RPC. The runtime serialises them itself, because gRPC hides two faults of the caller.

If a serializer raises, gRPC sends an empty message. If an iterator of requests raises, gRPC ends the RPC as cancelled,
without a reason.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

Serialize = Callable[[Any], bytes]
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


class Requests:
    """The serialised requests of the caller's iterator. `error` is the error that the iterator or serializer raised."""

    __slots__ = ("_serialize", "_source", "error")

    def __init__(self, source: Iterator[Any], serialize: Serialize) -> None:
        self._source = source
        self._serialize = serialize
        self.error: Exception | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return self._serialize(next(self._source))
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


class AsyncRequests:
    """Like `Requests`, for an asynchronous iterator.

    One class cannot do both, because gRPC checks the iterator's kind.
    """

    __slots__ = ("_serialize", "_source", "error")

    def __init__(self, source: AsyncIterator[Any], serialize: Serialize) -> None:
        self._source = source
        self._serialize = serialize
        self.error: Exception | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return self._serialize(await anext(self._source))
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def unsendable(metadata: tuple[Any, ...]) -> list[str]:
    """The keys of the metadata that gRPC refuses to send. It returns no values, because they may be secrets."""
    return [
        str(entry[0]) if isinstance(entry, tuple | list) and entry else "an entry that is not a pair"
        for entry in metadata
        if not isinstance(entry, tuple | list) or not _is_sendable(*entry)
    ]


def _is_sendable(key: object = None, value: object = None, *others: object) -> bool:
    if others or not isinstance(key, str) or not _KEY.fullmatch(key):
        return False
    if key.endswith("-bin"):
        return isinstance(value, bytes)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return isinstance(text, str) and _VALUE.fullmatch(text) is not None
