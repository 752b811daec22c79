"""Answers of the fake provider in OpenAI's format: healthy answers and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from voice_models.fake_provider import Answer, Pause, Step

__all__ = [
    "chat",
    "chat_stream",
    "delta",
    "embeddings",
    "error",
    "error_frame",
    "event",
    "finish",
    "responses_stream",
    "role",
    "speech",
    "tool_call",
    "transcription",
    "usage",
]

STREAM = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"


def event(document: Mapping[str, Any], name: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document)}\n\n".encode()


def _chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {"id": "fake", "object": "chat.completion.chunk", "created": 0, "model": "fake"}
    return event({**head, "choices": choices, **more})


def role() -> bytes:
    """The first event of a streamed chat, without content."""
    return _chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])


def delta(text: str) -> bytes:
    """An event with content."""
    return _chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}])


def tool_call(arguments: str, name: str = "search") -> bytes:
    """An event with a part of a tool call."""
    function = {"name": name, "arguments": arguments}
    call = {"index": 0, "id": "call", "type": "function", "function": function}
    return _chunk([{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}])


def finish(reason: str = "stop") -> bytes:
    """The event that ends the content."""
    return _chunk([{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(tokens_in: int = 10, tokens_out: int = 5) -> bytes:
    """The event with the usage. It has no choices."""
    return _chunk([], usage=_usage(tokens_in, tokens_out))


def _usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def error_frame(code: str = "server_error", message: str = "The server had an error") -> bytes:
    """An error event inside a stream whose status was 200."""
    return event({"error": {"code": code, "type": code, "message": message, "param": None}})


def streamed(steps: Iterable[Step], *, first: float = 0.0, gap: float = 0.0) -> Answer:
    """A stream of `steps`: the first step comes after `first` seconds, each later step after another `gap` seconds."""
    paused: list[Step] = []
    for number, step in enumerate(steps):
        wait = gap if number else first
        paused += [Pause(wait), step] if wait else [step]
    return Answer(tuple(paused), headers=STREAM)


def chat_stream(*texts: str, first: float = 0.0, gap: float = 0.0, tokens: tuple[int, int] | None = (10, 5)) -> Answer:
    """A healthy streamed chat of `texts`. `tokens` is the reported usage; with `None` the stream reports no usage."""
    ending = [finish(), *([usage(*tokens)] if tokens else []), DONE]
    return streamed([role(), *map(delta, texts), *ending], first=first, gap=gap)


def chat(
    text: str, *, delay: float = 0.0, finish_reason: str | None = "stop", tokens: tuple[int, int] = (10, 5)
) -> Answer:
    """A chat whose answer is not streamed."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    head = {"id": "fake", "object": "chat.completion", "created": 0, "model": "fake"}
    return _whole({**head, "choices": [choice], "usage": _usage(*tokens)}, delay)


def responses_stream(*texts: str, first: float = 0.0, gap: float = 0.0, tokens: tuple[int, int] = (10, 5)) -> Answer:
    """A healthy stream of the Responses API."""
    response = {
        "id": "fake",
        "object": "response",
        "created_at": 0,
        "model": "fake",
        "output": [],
        "status": "in_progress",
    }
    spent = {"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)}
    item = {"item_id": "fake", "output_index": 0, "content_index": 0}
    steps = [
        event({"type": "response.created", "response": response}, "response.created"),
        *(
            event({"type": "response.output_text.delta", "delta": text, **item}, "response.output_text.delta")
            for text in texts
        ),
        event(
            {"type": "response.completed", "response": {**response, "status": "completed", "usage": spent}},
            "response.completed",
        ),
    ]
    return streamed(steps, first=first, gap=gap)


def embeddings(count: int = 1, *, delay: float = 0.0, tokens: int = 10) -> Answer:
    """Embeddings of `count` inputs."""
    data = [{"object": "embedding", "index": index, "embedding": [0.25, 0.5]} for index in range(count)]
    spent = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _whole({"object": "list", "data": data, "model": "fake", "usage": spent}, delay)


def speech(chunks: int = 10, *, size: int = 640, first: float = 0.0, gap: float = 0.02) -> Answer:
    """Synthesized speech: `chunks` of `size` bytes. 640 bytes are 20 ms of 16-bit samples at 16 kHz."""
    answer = streamed([b"\1\0" * (size // 2)] * chunks, first=first, gap=gap)
    return Answer(answer.steps, headers={"content-type": "audio/pcm"})


def transcription(text: str, *, seconds: int = 1, delay: float = 0.0) -> Answer:
    """Recognized speech, billed by its duration."""
    return _whole({"text": text, "usage": {"type": "duration", "seconds": seconds}}, delay)


def error(
    status: int, code: str | None = None, *, message: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """An error with a status of 400 or above."""
    body = {"error": {"message": message or "refused", "type": code, "param": None, "code": code}}
    return Answer((json.dumps(body).encode(),), status, {**JSON, **(headers or {})})


def _whole(document: Mapping[str, Any], delay: float) -> Answer:
    return Answer((json.dumps(document).encode(),), headers=JSON, delay=delay)
