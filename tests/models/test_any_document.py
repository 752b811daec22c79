from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voice_models.classification import DIALECTS, OPENAI, ErrorClass, error_class
from voice_models.usage import Usage
from voice_models.wire_form import FORMS, parsed, read

WORDS = [
    *("choices", "delta", "message", "content", "refusal", "reasoning_content", "tool_calls", "function_call"),
    *("finish_reason", "index", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens"),
    *("output_tokens", "seconds", "error", "object", "type", "code", "status", "innererror", "response", "data"),
    *("results", "text", "incomplete_details", "reason"),
]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["", "error", "stop", "completed", "incomplete", "response.completed", "x.delta", "transcript.text.done", "a"]
    ),
)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6),
    max_leaves=25,
)
chunks = st.builds(
    lambda choices, more: {"choices": choices, **more},
    st.lists(st.dictionaries(st.sampled_from(["index", "delta", "message", "finish_reason"]), documents), max_size=2),
    st.dictionaries(st.sampled_from(WORDS), documents, max_size=3),
)


def is_sane(signal: Any) -> bool:
    usage = signal.usage
    return (
        isinstance(signal.text, str)
        and isinstance(signal.tool_call, bool)
        and isinstance(signal.finish_reason, str | None)
        and (usage is None or (isinstance(usage, Usage) and usage.input >= 0 and usage.output >= 0))
        and (signal.error is None or error_class(None, signal.error, OPENAI) in get_args(ErrorClass))
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@settings(max_examples=60, deadline=None)
@given(event=st.sampled_from(["message", "error", "x.delta"]), document=documents | chunks)
def test_every_wire_form_reads_any_document(form: Any, event: str, document: Any) -> None:
    assert is_sane(read(lambda: form.piece(event, document)))
    assert is_sane(read(lambda: form.whole(document)))


@pytest.mark.parametrize("depth", [10, 300, 600, 900, 990, 5_000], ids="depth {}".format)
@pytest.mark.parametrize("nested", [b'{"error":', b"[", b'{"innererror":'], ids=["error", "list", "innererror"])
def test_a_deeply_nested_error_is_classified_by_its_status(nested: bytes, depth: int) -> None:
    end = b"]" if nested == b"[" else b"}"
    document = parsed(nested * depth + b"1" + end * depth)
    for dialect in (OPENAI, *DIALECTS.values()):
        assert error_class(500, document, dialect) == "server_error"
