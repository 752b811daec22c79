"""An incremental parser of server-sent events, as the WHATWG HTML standard defines them (9.2).

The parser keeps the bytes of each frame, so that the SDK gets the provider's bytes unchanged.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""Matches the end of a frame. The groups are atomic, so CR LF is one line end and never two."""
LONGEST_BLANK_LINE = 4
"""Bytes of the longest end of a frame: CR LF CR LF."""
ONE_FRAME = re.compile(rb"data: ([^\r\n]*)\n\n")
"""Matches a chunk that is exactly one frame with one line of data. `feed` has a fast path for these frequent chunks."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """The bytes up to a blank line, and the event in them."""

    raw: bytes
    """The received bytes of the frame, with its blank line."""
    event: str
    """The type of the event; `message` if the frame has no type."""
    data: bytes | None
    """The data lines, joined by line feeds. `None` for a frame without data lines, such as a ping."""


class FrameParser:
    """Splits a stream of bytes into frames. Chunks may end anywhere."""

    __slots__ = ("_buffer", "_ignored_prefix", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._ignored_prefix = BYTE_ORDER_MARK
        """The byte order mark before the first frame. The standard ignores it only at the start of the stream."""

    @property
    def pending(self) -> int:
        """Number of bytes of the incomplete last frame. The standard discards them at the end of the stream."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that `chunk` completes."""
        buffer = self._buffer
        if not buffer and (whole := ONE_FRAME.fullmatch(chunk)):
            self._ignored_prefix = b""
            return [Frame(chunk, "message", whole[1])]
        buffer += chunk
        frames, start = [], 0
        for blank_line in BLANK_LINE.finditer(buffer, self._searched):
            frames.append(_frame(bytes(buffer[start : blank_line.end()]), self._ignored_prefix))
            self._ignored_prefix = b""
            start = blank_line.end()
        del buffer[:start]
        self._searched = max(len(buffer) - LONGEST_BLANK_LINE + 1, 0)
        return frames


def _frame(raw: bytes, ignored_prefix: bytes) -> Frame:
    event = "message"
    data: bytes | None = None
    for line in raw.removeprefix(ignored_prefix).splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            data = value if data is None else b"%b\n%b" % (data, value)
        elif field == b"event":
            event = value.removeprefix(b" ").decode(errors="replace") or event
    return Frame(raw, event, data)
