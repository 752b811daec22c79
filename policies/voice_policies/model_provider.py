"""Model provider: the company or server that answers model calls, and its address."""

from __future__ import annotations

from typing import Annotated, Literal

from voice_policies.address import Address
from voice_policies.names import TextPattern
from voice_policies.policy import Policy


class ModelProvider(Policy):
    """One provider's API: its host, the base path of its endpoints, and the form of its messages."""

    address: Address
    """The provider's host, port and egress proxy."""
    base_path: Annotated[str, TextPattern(r"^(/[A-Za-z0-9._-]+)*$", "/v1", 100)] = "/v1"
    """Path before the path of an endpoint: `/v1` before `/chat/completions`."""
    wire_form: Literal["openai"] = "openai"
    """The form of requests and answers: OpenAI's chat, responses, embeddings and audio, and `/rerank`."""
    idempotency_keys: bool = False
    """True if the provider recognizes a repeated request by its key. OpenAI's form has no such key, so each attempt may
    be billed."""
