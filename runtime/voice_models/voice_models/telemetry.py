"""Spans of attempts, by OpenTelemetry's conventions for generative AI.

A prompt or an answer is recorded only if the route's `PromptPrivacy` captures it.
"""

from __future__ import annotations

import json
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from voice_policies import ModelRoute

from voice_models.attempt import ModelAttempt
from voice_models.usage import ModelAttempted

CONVENTIONS = "0.1.0"
"""Version of the repository `semantic-conventions-genai` that defines the names of the attributes."""
_tracer = trace.get_tracer("voice_models", attributes={"gen_ai.conventions.version": CONVENTIONS})


def begin_span(route_name: str, route: ModelRoute, attempt: ModelAttempt) -> Span:
    """The span of an attempt. `end_span` ends it."""
    form, candidate = attempt.request.form, attempt.candidate
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": form.operation,
        "gen_ai.provider.name": candidate.deployment.provider,
        "gen_ai.request.model": candidate.model.name,
        "gen_ai.request.stream": attempt.request.is_streamed,
        "server.address": candidate.provider.address.host,
        "voice.model.route": route_name,
        "voice.model.deployment": candidate.name,
        "voice.model.attempt": attempt.number,
    }
    if attempt.request.max_output:
        attributes["gen_ai.request.max_tokens"] = attempt.request.max_output
    if route.privacy.capture:
        prompt = attempt.request.body.get("messages", attempt.request.body.get("input"))
        attributes["gen_ai.input.messages"] = json.dumps(prompt, ensure_ascii=False)
    return _tracer.start_span(f"{form.operation} {candidate.model.name}", kind=SpanKind.CLIENT, attributes=attributes)


def end_span(span: Span, event: ModelAttempted, answer: str | None) -> None:
    """End the span with the facts of the event. `answer` is the content, if it is captured."""
    if span.is_recording():
        attributes: dict[str, Any] = {
            "gen_ai.usage.output_tokens": event.output_tokens,
            "voice.model.usage.estimated": event.estimated,
            "voice.model.ending": event.ending,
        }
        if event.input_unit == "token":
            attributes["gen_ai.usage.input_tokens"] = event.input_units
        if event.first_token is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = event.first_token
        if event.finish_reason is not None:
            attributes["gen_ai.response.finish_reasons"] = [event.finish_reason]
        if answer is not None:
            attributes["gen_ai.output.messages"] = answer
        if event.error_class is not None:
            attributes["error.type"] = event.error_class
            span.set_status(StatusCode.ERROR, event.error_class)
        span.set_attributes(attributes)
    span.end()
