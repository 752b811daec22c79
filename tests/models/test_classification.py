from __future__ import annotations

from datetime import date
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice_models.classification import BY_STATUS, DIALECTS, OPENAI, ErrorClass, dialect_of, error_class

GEMINI = "You exceeded your current quota, please check your plan and billing details."


def openai(code: str | None, message: str = "", kind: str | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "type": kind, "message": message}}


def gemini(quota: str) -> list[Any]:
    detail = {"violations": [{"quotaId": quota}]}
    return [{"error": {"code": 429, "message": GEMINI, "status": "RESOURCE_EXHAUSTED", "details": [detail]}}]


@pytest.mark.parametrize(
    ("host", "status", "error", "expected"),
    [
        ("api.openai.com", 429, openai("rate_limit_exceeded", kind="tokens"), "rate_limited"),
        ("api.openai.com", 429, openai("insufficient_quota"), "quota_exhausted"),
        ("api.openai.com", 429, openai("project_spend_limit_exceeded", kind="insufficient_quota"), "quota_exhausted"),
        ("api.openai.com", 429, openai(None, GEMINI), "quota_exhausted"),
        ("api.openai.com", 429, openai(None, "Rate limit reached for tokens per min"), "rate_limited"),
        ("api.openai.com", 400, openai("context_length_exceeded"), "context_exceeded"),
        ("vllm.models", 400, {"message": "This model's maximum context length is 8192 tokens"}, "context_exceeded"),
        ("api.openai.com", 400, openai("content_policy_violation"), "content_filtered"),
        ("api.openai.com", 400, openai(None), "invalid_request"),
        ("api.openai.com", 401, openai("invalid_api_key"), "authentication"),
        ("api.openai.com", 404, openai(None, kind="invalid_request_error"), "model_not_found"),
        ("api.openai.com", None, openai("server_error"), "server_error"),
        ("api.openai.com", None, openai(None, kind="invalid_request_error"), "invalid_request"),
        ("api.openai.com", None, {"error": {"code": 503, "message": "busy"}}, "overloaded"),
        ("api.openai.com", 500, "not JSON", "server_error"),
        ("api.scaleway.ai", 429, {"status": 429, "error": "INSUFFICIENT QUOTA"}, "rate_limited"),
        ("api.openai.com", 429, {"status": 429, "error": "INSUFFICIENT QUOTA"}, "rate_limited"),
        ("x.openai.azure.com", 429, openai("RateLimitReached", "To increase your quota"), "rate_limited"),
        ("x.openai.azure.com", 403, openai("403", "Out of call volume quota."), "quota_exhausted"),
        (
            "x.openai.azure.com",
            400,
            {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            "content_filtered",
        ),
        ("x.googleapis.com", 429, gemini("GenerateRequestsPerMinutePerProjectPerModel"), "rate_limited"),
        ("x.googleapis.com", 429, gemini("GenerateRequestsPerDayPerProjectPerModel"), "quota_exhausted"),
        ("api.anthropic.com", 529, {"type": "error", "error": {"type": "overloaded_error"}}, "overloaded"),
        ("api.anthropic.com", 400, openai("x", "Your credit balance is too low"), "quota_exhausted"),
        ("api.deepseek.com", 402, openai(None, "Insufficient Balance"), "quota_exhausted"),
        ("api.moonshot.ai", 429, openai("engine_overloaded_error"), "overloaded"),
    ],
)
def test_the_error_codes_and_phrases_of_each_provider_determine_the_class(
    host: str, status: int | None, error: Any, expected: ErrorClass
) -> None:
    assert error_class(status, error, dialect_of(host)) == expected


@pytest.mark.parametrize(("status", "expected"), [*BY_STATUS.items(), (500, "server_error"), (422, "invalid_request")])
def test_without_a_known_code_or_phrase_the_status_determines_the_class(status: int, expected: ErrorClass) -> None:
    assert error_class(status, None, OPENAI) == expected


def test_each_dialect_has_only_known_classes_and_the_day_on_which_it_was_read() -> None:
    for dialect in (OPENAI, *DIALECTS.values()):
        assert dialect.read <= date(2026, 11, 30)
        named = {*dialect.codes.values(), *(found for _, found in dialect.phrases)}
        assert named <= set(get_args(ErrorClass))


def test_a_host_with_a_similar_suffix_has_the_default_dialect() -> None:
    assert dialect_of("notazure.com") is OPENAI


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "code", "type", "message"]), inner),
)


@given(st.none() | st.integers(300, 599), json_values)
def test_every_error_has_a_class(status: int | None, error: Any) -> None:
    assert error_class(status, error, OPENAI) in get_args(ErrorClass)
