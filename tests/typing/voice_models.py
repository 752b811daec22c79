"""Only a type checker reads this file: nothing in it runs."""

from __future__ import annotations

from typing import assert_type

import httpx
from voice_models import (
    ErrorClass,
    ModelAttempted,
    ModelAttemptError,
    ModelError,
    ModelRefusedError,
    ModelRuntime,
    ModelStreamError,
    ModelTransport,
    SyncModelTransport,
    Usage,
    UsageSink,
)
from voice_models.fake_answers import chat_stream
from voice_models.fake_provider import FakeProvider
from voice_models.prometheus import ModelCollector
from voice_runtime import CallRejectedError, Runtime, VoiceRuntimeError


class Ledger:
    def on_attempt(self, event: ModelAttempted) -> None:
        assert_type(event.micro_usd, int)
        assert_type(event.error_class, ErrorClass | None)


def clients(runtime: Runtime) -> tuple[httpx.AsyncClient, httpx.Client]:
    sink: UsageSink = Ledger()
    models = ModelRuntime(runtime, sinks=[sink])
    ModelCollector(models)
    return (
        httpx.AsyncClient(transport=ModelTransport(models, "llm.generate")),
        httpx.Client(transport=SyncModelTransport(models, "llm.generate")),
    )


def errors(error: ModelError) -> VoiceRuntimeError:
    assert_type(error.error_class, ErrorClass)
    assert_type(error.retry_after, float | None)
    if isinstance(error, ModelStreamError):
        assert_type(error.usage, Usage)
    kinds: tuple[type[CallRejectedError], type[ModelError]] = (ModelRefusedError, ModelAttemptError)
    del kinds
    return error


def fake() -> FakeProvider:
    return FakeProvider(lambda request: chat_stream(request.path))
