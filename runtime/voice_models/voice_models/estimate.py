"""Estimates of tokens, for reservations and for answers whose provider reports no usage. No tokenizer is loaded."""

from __future__ import annotations

import json
import math
import re
from typing import Any

BYTES_PER_INPUT_TOKEN = 4
"""OpenAI's rule of thumb: a token of English text has about four characters, and each is one byte in UTF-8. For
Cyrillic and Chinese text the estimate is wrong by at most a third."""
BYTES_PER_OUTPUT_TOKEN = 2
"""Half of `BYTES_PER_INPUT_TOKEN`. So an estimate for an answer is more often too high than too low."""
TOKENS_OF_IMAGE = 1445
"""The most tokens that OpenAI counts for one image in high detail: 85 + 8 tiles × 170 = 1445."""
MEDIA = {"input_audio", "image_url"}
"""If a part of a message has one of these keys, it contains audio, an image or the address of an image."""
DATA_URL = re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,", re.IGNORECASE)


def input_tokens(body: Any) -> int:
    """The tokens of a request's parsed body, at least 1. Images and audio count as `TOKENS_OF_IMAGE` each."""
    length, media = _weight(body)
    return max(math.ceil(length / BYTES_PER_INPUT_TOKEN) + media * TOKENS_OF_IMAGE, 1)


def output_tokens(content_bytes: int) -> int:
    """The tokens of the content that has arrived, by its length in bytes."""
    return math.ceil(content_bytes / BYTES_PER_OUTPUT_TOKEN)


def _weight(value: Any) -> tuple[int, int]:
    """The bytes of texts and numbers in `value`, and the number of images and audio clips."""
    if isinstance(value, str):
        return (0, 1) if DATA_URL.match(value) else (len(value.encode(errors="surrogatepass")), 0)
    if isinstance(value, list | tuple):
        parts = [_weight(part) for part in value]
    elif isinstance(value, dict):
        if not MEDIA.isdisjoint(value):
            return 0, 1
        parts = [_weight(part) for part in value.values()]
    else:
        return len(json.dumps(value)), 0
    return sum(length for length, _ in parts), sum(media for _, media in parts)
