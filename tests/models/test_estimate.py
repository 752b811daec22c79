from __future__ import annotations

import json
from typing import Any

import pytest
from voice_models.answer import EventReader
from voice_models.estimate import TOKENS_OF_IMAGE, input_tokens, output_tokens
from voice_models.wire_form import Chat

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}


def message(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def test_four_bytes_of_text_are_a_token_in_every_alphabet() -> None:
    ascii_text, cyrillic = "word " * 100, "слово " * 100
    assert 125 <= input_tokens(message(ascii_text)) <= 130
    assert 275 <= input_tokens(message(cyrillic)) <= 280


def test_an_image_counts_as_the_largest_image_and_not_by_its_bytes() -> None:
    assert input_tokens(message(IMAGE, IMAGE)) - input_tokens(message()) - 2 * TOKENS_OF_IMAGE in range(20)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://a.example/x.png", "detail": "high"}},
        {"type": "input_image", "image_url": "https://a.example/x.png"},
    ],
    ids=["chat", "responses"],
)
def test_an_image_by_its_address_counts_like_an_embedded_image(part: dict[str, Any]) -> None:
    assert input_tokens(message(part)) - input_tokens(message()) == TOKENS_OF_IMAGE


def test_a_recording_does_not_count_by_its_bytes() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    assert input_tokens(message(sound)) < 2 * TOKENS_OF_IMAGE


def test_an_empty_request_is_at_least_one_token() -> None:
    assert input_tokens({}) == 1


@pytest.mark.parametrize("captures", [False, True])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("text", ["plain", "привет", "😀", 'a "quote"\n', "\\"])
def test_an_escaped_answer_counts_like_the_same_answer_without_escapes(
    text: str, *, ascii_only: bool, captures: bool
) -> None:
    reader = EventReader(Chat(), captures=captures, hides_usage=False)
    for _ in range(10):
        document = {"choices": [{"index": 0, "delta": {"content": text}}]}
        reader.feed(b"data: %b\n\n" % json.dumps(document, ensure_ascii=ascii_only).encode())
    assert reader.content_bytes == 10 * len(text.encode())


@pytest.mark.parametrize(
    ("content", "tokens"),
    [(0, 0), (1, 1), (2, 1), (3, 2), (1000, 500)],
    ids=["no bytes", "1 byte", "2 bytes", "3 bytes", "1000 bytes"],
)
def test_an_answer_has_half_as_many_tokens_as_bytes_rounded_up(content: int, tokens: int) -> None:
    assert output_tokens(content) == tokens
