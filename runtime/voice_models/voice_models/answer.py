"""Readers of answers. A reader decides which bytes may reach the caller, and when an answer is complete.

No reader does I/O: bytes go in, bytes for the caller come out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from voice_models.server_sent_events import Frame, FrameParser
from voice_models.usage import Usage
from voice_models.wire_form import Envelope, Signal, Speech, WireForm, parsed, read

BUFFER_LIMIT = 64 * 1024
"""Maximum number of bytes before the first content of an answer. They are the role, lifecycle frames and pings."""
DONE = b"[DONE]"
ENDED_EARLY = object()
"""The error for a stream that sends `[DONE]` without a finish reason before it."""


class Reader(ABC):
    """Reads one answer. The first content commits the answer: after it, no other candidate may answer the call."""

    def __init__(self, form: WireForm, *, captures: bool) -> None:
        self.is_committed = False
        self.finish_reason: str | None = None
        """The provider's `finish_reason`, at the end of a complete answer. `None` before."""
        self.usage: Usage | None = None
        self.content_bytes = 0
        """Bytes of content so far, to estimate the output tokens."""
        self.error: Any = None
        """The error of the answer: reported by the provider, or found by this reader. `None` if there is no error."""
        self.text: list[str] = []
        """The content, kept only if a policy captures it."""
        self._form = form
        self._captures = captures

    @abstractmethod
    def feed(self, chunk: bytes) -> bytes:
        """Read a chunk. Returns the bytes that may reach the caller now."""

    @abstractmethod
    def end(self) -> bytes:
        """Note the end of the body. Returns the rest of the bytes for the caller."""

    def _note(self, signal: Signal, *, is_finished: bool = True) -> None:
        if signal.text:
            self.content_bytes += _length(signal.text)
            if self._captures:
                self.text.append(signal.text)
        if is_finished:
            self.finish_reason = signal.finish_reason or self.finish_reason
        self.usage = signal.usage or self.usage
        self.error = signal.error


class EventReader(Reader):
    """Reads a stream of events. Frames before the first content are held back until that content arrives.

    After the first part of a tool call, frames are held back until the finish reason. So no caller gets an incomplete
    tool call.
    """

    def __init__(self, form: WireForm, *, captures: bool, hides_usage: bool, choices: int = 1) -> None:
        super().__init__(form, captures=captures)
        self._hides_usage = hides_usage
        self._choices = choices
        self._finished: frozenset[int] = frozenset()
        self._early = 0
        """Bytes that arrived before the first content."""
        self._parser = FrameParser()
        self._waiting: list[bytes] = []
        self._in_tool_call = False
        self._envelope: Envelope | None = None
        """The bytes around the text of the last parsed event. `None` if that event held more than text, or if a policy
        captures the content."""

    def feed(self, chunk: bytes) -> bytes:
        """Like `Reader.feed`. Reads no frame of the chunk after an error."""
        for frame in self._parser.feed(chunk):
            self._read(frame)
            if self.error is not None:
                break
        if not self.is_committed:
            self._early += len(chunk)
            if self._early > BUFFER_LIMIT:
                self.error = {"code": "server_error", "message": "too many bytes before the first content"}
        if not self.is_committed or (self._in_tool_call and self.finish_reason is None):
            return b""
        handed_on = b"".join(self._waiting)
        self._waiting.clear()
        return handed_on

    def _read(self, frame: Frame) -> None:
        if not frame.data:
            return  # drop pings and frames without data, because an SDK would take a frame without data for an event
        if frame.data.startswith(DONE):
            if self.finish_reason is None:
                self.error = ENDED_EARLY  # an SDK stops here and would treat the answer as complete
            else:
                self._waiting.append(frame.raw)
            return
        if self._envelope is not None and (text := self._envelope.text_in(frame.data)) is not None:
            self.content_bytes += _length(parsed(b'"%b"' % text)) if b"\\" in text else len(text)
            self._waiting.append(frame.raw)
            return
        document = parsed(frame.data)
        if frame.event == "error":
            self.error = document
            return
        signal = read(lambda: self._form.piece(frame.event, document))
        if signal.finish_reason is not None:
            self._finished |= signal.finished
        self._note(signal, is_finished=len(self._finished) >= self._choices)
        self._envelope = None if self._captures else self._form.envelope(frame.data, signal)
        if signal.error is not None or (signal.is_bare_usage and self._hides_usage):
            return
        self._in_tool_call = self._in_tool_call or signal.tool_call
        # A finish reason also commits an answer without content: a content filter may have removed all text.
        content = signal.text or signal.is_sound or signal.tool_call or signal.finish_reason
        self.is_committed = self.is_committed or bool(content)
        self._waiting.append(frame.raw)

    def end(self) -> bytes:
        """Return no bytes, because the standard discards an incomplete frame."""
        return b""


class WholeReader(Reader):
    """Reads an answer that the caller gets only when it is complete.

    If the request asked for a stream, this reader reports an error, because an SDK would find no event in the answer.
    """

    def __init__(self, form: WireForm, *, captures: bool, is_streamed: bool) -> None:
        super().__init__(form, captures=captures)
        self._is_streamed = is_streamed
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """Keep the bytes until the end. Returns no bytes."""
        self._parts.append(chunk)
        return b""

    def end(self) -> bytes:
        """Read the answer. Returns all its bytes."""
        content = b"".join(self._parts)
        document = parsed(content)
        self._note(read(lambda: self._form.whole(document)))
        if self._is_streamed and self.error is None:
            self.error = {"code": "server_error", "message": "a whole answer instead of a stream"}
        self.is_committed = self.error is None and self.finish_reason is not None
        return content


class SoundReader(Reader):
    """Reads audio, which has no frames.

    The first byte commits the answer, and the end of the HTTP body completes it.
    """

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes unchanged."""
        self.is_committed = self.is_committed or bool(chunk)
        return chunk

    def end(self) -> bytes:
        """Complete the answer, unless it is empty. Returns no bytes."""
        self.finish_reason = "stop" if self.is_committed else None
        return b""


def _length(text: str) -> int:
    """The length in bytes of UTF-8."""
    return len(text.encode(errors="surrogatepass"))


def reader_of(
    form: WireForm, content_type: str, body: Mapping[str, Any], *, captures: bool, hides_usage: bool
) -> Reader:
    """The reader for a content type and the body of the request.

    A provider may report an error as JSON or HTML although a stream was requested.
    """
    media_type, is_streamed = content_type.lower(), form.is_streamed(body)
    if is_streamed and media_type.startswith("text/event-stream"):
        return EventReader(form, captures=captures, hides_usage=hides_usage, choices=form.choices_of(body))
    if isinstance(form, Speech) and media_type.startswith(("audio/", "application/octet-stream")):
        return SoundReader(form, captures=captures)
    return WholeReader(form, captures=captures, is_streamed=is_streamed)
