"""The OpenAI wire form: the facts that the runtime reads in a request and in each piece of an answer.

To support another wire form, write another set of `WireForm` classes.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeGuard

from voice_models.usage import Usage

FIRST = frozenset({0})
MOST_TOKENS = 10**12
"""A provider that reports more tokens than this is wrong."""


class Signal(NamedTuple):
    """The facts in one piece of an answer: a frame of a stream, or the whole answer."""

    text: str = ""
    """New content."""
    tool_call: bool = False
    """True for a part of a tool call."""
    finish_reason: str | None = None
    usage: Usage | None = None
    error: Any = None
    """The provider's error, in any form."""
    is_sound: bool = False
    """True for audio content instead of text."""
    is_bare_usage: bool = False
    """True if the piece contains only the usage. If the caller did not ask for it, the runtime drops the piece."""
    finished: frozenset[int] = FIRST
    """The choices that `finish_reason` completes."""


class WireForm(ABC):
    """The wire form of one endpoint."""

    operation: ClassVar[str]
    """`gen_ai.operation.name` of OpenTelemetry's conventions."""
    output_limit_field: ClassVar[str | None] = None
    """The field of a request that limits the output tokens; `None` if the endpoint generates no text."""

    def is_streamed(self, body: Mapping[str, Any]) -> bool:
        """True if the request asks for a stream."""
        return body.get("stream") is True

    def limit_of(self, body: Mapping[str, Any]) -> int | None:
        """The output tokens that a request allows; `None` if the request names no limit."""
        found = body.get(self.output_limit_field) if self.output_limit_field else None
        return found if isinstance(found, int) else None

    def choices_of(self, body: Mapping[str, Any]) -> int:  # noqa: ARG002  # most endpoints give one answer
        """The number of answers that a request asks for."""
        return 1

    def ask_for_usage(self, body: dict[str, Any]) -> bool:  # noqa: ARG002  # most endpoints always report the usage
        """Make a streamed request ask for the usage. Returns true if the caller had not asked for it."""
        return False

    def envelope(self, data: bytes, signal: Signal) -> Envelope | None:  # noqa: ARG002  # an endpoint with few events needs no shortcut
        """The bytes around the text of an event that holds text and nothing else; `None` for any other event."""
        return None

    @abstractmethod
    def piece(self, event: str, document: Any) -> Signal:
        """The facts in an event of a stream."""

    @abstractmethod
    def whole(self, document: Any) -> Signal:
        """The facts in an answer that is not streamed."""


def _error_of(document: Any) -> Any:
    if not isinstance(document, dict):
        return {"message": "not an object"}
    # Some servers send an empty error in every piece.
    return document if document.get("object") == "error" else document.get("error") or None


def _usage(document: Mapping[str, Any], tokens_in: str, tokens_out: str) -> Usage | None:
    """The reported usage. `None` without a usage, or if its numbers are not whole numbers from 0 to `MOST_TOKENS`."""
    spent = document.get("usage")
    if not isinstance(spent, dict):
        return None
    given, output = spent.get(tokens_in), spent.get(tokens_out)
    return Usage(given, output or 0) if _is_count(given) and (output is None or _is_count(output)) else None


def _seconds(document: Mapping[str, Any]) -> Usage | None:
    found = _usage(document, "seconds", "")
    return found and found._replace(unit="audio_second")


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MOST_TOKENS


STRING = re.compile(rb'(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
"""The inside of a JSON string."""
CONTENT = re.compile(rb'"content"\s*+:\s*+"(%b)"' % STRING.pattern)


class Envelope(NamedTuple):
    """The bytes of an event before and after its text. Two events with equal envelopes differ only in their texts."""

    before: bytes
    after: bytes

    def text_in(self, data: bytes) -> bytes | None:
        """The escaped text of an event with this envelope. `None` if `data` is another event or more than one event."""
        before, after = self
        if not (data.startswith(before) and data.endswith(after)):
            return None
        text = data[len(before) : len(data) - len(after)]
        is_whole = len(data) >= len(before) + len(after) and STRING.fullmatch(text) and _is_text(text)
        return text if is_whole else None


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
"""Fields of a delta that hold text. vLLM and OpenRouter send a model's reasoning in `reasoning`, other providers in
`reasoning_content`."""


class Chat(WireForm):
    """`/chat/completions`."""

    operation = "chat"
    output_limit_field = "max_completion_tokens"

    def limit_of(self, body: Mapping[str, Any]) -> int | None:
        """The output tokens of all choices together. The field may also have the older name `max_tokens`."""
        limit = super().limit_of(body)
        if limit is None and isinstance(older := body.get("max_tokens"), int):
            limit = older
        return None if limit is None else limit * self.choices_of(body)

    def choices_of(self, body: Mapping[str, Any]) -> int:
        """The field `n`, at least 1."""
        choices = body.get("n")
        return max(choices, 1) if isinstance(choices, int) else 1

    def ask_for_usage(self, body: dict[str, Any]) -> bool:
        """Set `stream_options.include_usage`."""
        options = body.get("stream_options") or {}
        if not isinstance(options, dict):
            return False  # the provider refuses such a request
        body["stream_options"] = {**options, "include_usage": True}
        return not options.get("include_usage")

    def envelope(self, data: bytes, signal: Signal) -> Envelope | None:
        """Like `WireForm.envelope`. If the next event has the same envelope, the runtime need not parse that event.

        Most events of a chat differ only in their texts. Parsing is the most expensive part of the work on an event.
        """
        found = list(CONTENT.finditer(data)) if signal.text else []
        if signal != Signal(signal.text) or len(found) != 1 or parsed(b'"%b"' % found[0][1]) != signal.text:
            return None
        start, end = found[0].span(1)
        return Envelope(data[:start], data[end:])

    def piece(self, event: str, document: Any) -> Signal:  # noqa: ARG002  # chat events have no type
        """The facts in a chunk. If it finishes several choices, the last finish reason in the chunk counts."""
        return self._read(document, "delta")

    def whole(self, document: Any) -> Signal:
        """The facts in a completion."""
        return self._read(document, "message")

    def _read(self, document: Any, part: str) -> Signal:
        error = _error_of(document)
        if error is not None:
            return Signal(error=error)
        choices = document.get("choices") or ()
        text, tool_call, is_sound, reason = "", False, False, None
        finished = []
        for choice in choices:
            content = choice.get(part) or {}
            text += _text(next(filter(None, map(content.get, TEXTS)), ""))
            is_sound = is_sound or bool(content.get("audio"))
            tool_call = tool_call or bool(content.get("tool_calls") or content.get("function_call"))
            if choice.get("finish_reason"):
                reason = str(choice["finish_reason"])
                finished.append(choice.get("index", 0))
        if reason == "error":  # Mistral's word for an answer that broke off
            return Signal(error=document)
        usage = _usage(document, "prompt_tokens", "completion_tokens")
        bare = usage is not None and not choices
        finished_choices = frozenset(finished) or FIRST
        return Signal(text, tool_call, reason, usage, is_sound=is_sound, is_bare_usage=bare, finished=finished_choices)


def _text(content: Any) -> str:
    """The text of a delta. If the provider sends a list of parts, the text is the JSON of the list."""
    if isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    if not isinstance(content, str):
        raise TypeError("the content of a delta must be text or a list of parts")
    return content


class Responses(WireForm):
    """`/responses`."""

    operation = "chat"
    output_limit_field = "max_output_tokens"

    def piece(self, event: str, document: Any) -> Signal:
        """The facts in an event. The data also contain the event's type."""
        kind = document.get("type", event) if isinstance(document, dict) else event
        if kind == "error":
            return Signal(error=_error_of(document) or document)
        if kind in {"response.completed", "response.incomplete", "response.failed"}:
            return self.whole(document.get("response"))
        if kind.endswith(".delta"):
            text = str(document.get("delta") or "")
            return Signal(text, tool_call="arguments" in kind or "tool_call" in kind)
        return Signal()

    def whole(self, document: Any) -> Signal:
        """The facts in a response that has ended."""
        error = _error_of(document)
        if error is not None:
            return Signal(error=error)
        reasons = {"completed": "stop", "incomplete": (document.get("incomplete_details") or {}).get("reason")}
        reason = reasons.get(document.get("status"))
        usage = _usage(document, "input_tokens", "output_tokens")
        reason = "length" if reason == "max_output_tokens" else reason
        return Signal(finish_reason=reason if isinstance(reason, str) else None, usage=usage)


class Listed(WireForm):
    """An endpoint that answers with a complete list or an error."""

    def __init__(self, operation: str, field: str) -> None:
        self.operation = operation  # type: ignore[misc]  # each instance is another endpoint
        self._field = field

    def is_streamed(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002  # the endpoint has no streams
        """Return false, because the answer is never streamed."""
        return False

    def piece(self, event: str, document: Any) -> Signal:  # noqa: ARG002  # as above
        """Like `whole`."""
        return self.whole(document)

    def whole(self, document: Any) -> Signal:
        """The facts in a list."""
        error = _error_of(document)
        if error is not None:
            return Signal(error=error)
        usage = _usage(document, "prompt_tokens", "") or _usage(document, "total_tokens", "")
        return Signal(finish_reason="stop" if isinstance(document.get(self._field), list) else None, usage=usage)


class Transcription(WireForm):
    """`/audio/transcriptions` and `/audio/translations`."""

    operation = "speech_recognition"

    def is_streamed(self, body: Mapping[str, Any]) -> bool:
        """True if the request asks for a stream. In a multipart form the field is text."""
        stream = body.get("stream")
        return stream is True or stream == "true"

    def piece(self, event: str, document: Any) -> Signal:
        """The facts in an event of a streamed transcript."""
        kind = document.get("type", event) if isinstance(document, dict) else event
        if kind == "error":
            return Signal(error=_error_of(document) or document)
        if kind == "transcript.text.done":
            return self.whole(document)._replace(text="")
        return Signal(str(document.get("delta") or "")) if kind.endswith(".delta") else Signal()

    def whole(self, document: Any) -> Signal:
        """The facts in a transcript. The provider bills tokens or seconds."""
        error = _error_of(document)
        if error is not None:
            return Signal(error=error)
        usage = _usage(document, "input_tokens", "output_tokens") or _seconds(document)
        text = document.get("text")
        return Signal(text, finish_reason="stop", usage=usage) if isinstance(text, str) else Signal(usage=usage)


class Speech(WireForm):
    """`/audio/speech`. The content is audio, or server-sent events if the request asks for them."""

    operation = "speech_synthesis"

    def is_streamed(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002  # audio is always streamed
        """Return true, because a caller can play audio while it arrives."""
        return True

    def piece(self, event: str, document: Any) -> Signal:
        """The facts in an event with encoded audio."""
        kind = document.get("type", event) if isinstance(document, dict) else event
        if kind == "error":
            return Signal(error=_error_of(document) or document)
        if kind == "speech.audio.done":
            return Signal(finish_reason="stop", usage=_usage(document, "input_tokens", "output_tokens"))
        return Signal(is_sound=kind == "speech.audio.delta")

    def whole(self, document: Any) -> Signal:
        """The error in the JSON that the provider sends instead of audio."""
        return Signal(error=_error_of(document) or document)


FORMS: Mapping[str, WireForm] = {
    "/chat/completions": Chat(),
    "/responses": Responses(),
    "/embeddings": Listed("embeddings", "data"),
    "/rerank": Listed("rerank", "results"),
    "/audio/speech": Speech(),
    "/audio/transcriptions": Transcription(),
    "/audio/translations": Transcription(),
}
"""The wire form of each endpoint, by the end of the endpoint's path."""


INVALID = {"error": {"message": "the answer is not in the OpenAI format", "type": "server_error"}}
"""The document that replaces an unreadable piece."""


def parsed(content: bytes, otherwise: Any = INVALID) -> Any:
    """The parsed JSON of a piece; `otherwise` if the piece is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return otherwise


def read(piece: Callable[[], Signal]) -> Signal:
    """The facts that `piece` finds in a document. If its shape is unexpected, the `Signal` contains an error."""
    try:
        return piece()
    except (AttributeError, KeyError, TypeError, ValueError):
        return Signal(error=INVALID["error"])
