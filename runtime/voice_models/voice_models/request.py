"""A model request: the facts by which candidates are chosen, and the request that each candidate gets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import httpx
from voice_policies import ModelPrice

from voice_models.estimate import input_tokens
from voice_models.wire_form import FORMS, WireForm

PROMPT_VERSION = "x-prompt-version"
"""Request header with the version of the caller's prompt, for the scope of a cache. It is not sent to a provider."""
NOT_SENT = frozenset(
    {"host", "authorization", "api-key", "x-api-key", "content-length", "accept-encoding", PROMPT_VERSION}
)
"""Headers of the SDK that are not sent to a provider, such as the SDK's own key. `headers_for` asks for answers without
compression, so that each chunk can be read."""
MODEL_PART = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)([^\r\n]*)')
FORM_FIELD = re.compile(rb'name="(\w+)"\r\n\r\n([^\r\n]*)\r\n')
BYTES_PER_SECOND = 32_000
"""Bytes of one second of 16-bit mono audio at 16 kHz, to estimate the length of a recording."""


class ModelRequest:
    """One request of an SDK. All candidates get the same body except for the model, so the body is parsed once."""

    def __init__(self, request: httpx.Request, content: bytes, output_limit: int | None) -> None:
        """Parse the request. Raises `ValueError` for an unknown endpoint, invalid JSON, and JSON that is no object."""
        self.endpoint, self.form = _form_of(request.url.path)
        self.headers = request.headers
        self.query = request.url.query
        self._content = content
        self._is_json = request.headers.get("content-type", "").startswith("application/json")
        self.body = _object(content) if self._is_json else _fields(content)
        self.is_streamed = self.form.is_streamed(self.body)
        self.input_tokens = input_tokens(self.body)
        self.max_output = self._limited(output_limit)
        self.hides_usage = self._is_json and self.is_streamed and self.form.ask_for_usage(self.body)

    @property
    def prompt_version(self) -> str:
        """The version of the caller's prompt; empty if the caller names no version."""
        return str(self.headers.get(PROMPT_VERSION, ""))

    @property
    def reserved_tokens(self) -> int:
        """The tokens that an attempt reserves: the estimated input and the output limit."""
        return self.input_tokens + self.max_output

    def input_units(self, price: ModelPrice | None) -> int:
        """The estimated input in the unit that the provider bills."""
        unit = price.unit if price else "token"
        if unit == "character":
            given = self.body.get("input", "")
            return sum(len(str(part)) for part in (given if isinstance(given, list) else [given]))
        if unit == "audio_second":
            return math.ceil(len(self._content) / BYTES_PER_SECOND)
        return self.input_tokens

    def content_for(self, model: str) -> bytes:
        """The body with the candidate's model name."""
        if self._is_json:
            return json.dumps({**self.body, "model": model}, ensure_ascii=False, separators=(",", ":")).encode(
                errors="surrogatepass"
            )
        return MODEL_PART.sub(lambda found: found[1] + model.encode(), self._content, count=1)

    def headers_for(self, key: str) -> httpx.Headers:
        """The headers with the candidate's key."""
        kept = [(name, value) for name, value in self.headers.items() if name not in NOT_SENT]
        return httpx.Headers([*kept, ("authorization", f"Bearer {key}"), ("accept-encoding", "identity")])

    def _limited(self, limit: int | None) -> int:
        """Apply the output limit of the route. Returns the output tokens that the request may use."""
        asked = self.form.limit_of(self.body)
        field = self.form.output_limit_field
        if field is None or limit is None or (asked is not None and asked <= limit):
            return max(asked or 0, 0)  # a negative limit must not reserve negative tokens
        self.body = {name: value for name, value in self.body.items() if name != "max_tokens"}
        choices = self.form.choices_of(self.body)
        self.body[field] = per_choice = max(limit // choices, 1)
        return choices * per_choice


def _form_of(path: str) -> tuple[str, WireForm]:
    for endpoint, form in FORMS.items():
        if path.endswith(endpoint):
            return endpoint, form
    raise ValueError(f"path {path} is not a model endpoint; expected a path that ends with {', '.join(FORMS)}")


def _object(content: bytes) -> dict[str, Any]:
    body = json.loads(content)
    if not isinstance(body, dict):
        raise ValueError("the body of a model request must be a JSON object")  # noqa: TRY004  # the input has a wrong value, no argument has a wrong type
    return body


def _fields(content: bytes) -> dict[str, Any]:
    """The one-line fields of a multipart form. The form's files are left out, so an estimate of tokens ignores them."""
    return {name.decode(): value.decode(errors="replace") for name, value in FORM_FIELD.findall(content)}


def lower_case(headers: httpx.Headers) -> Mapping[str, str]:
    """The headers of an answer, by their names in lower case."""
    return dict(headers.items())
