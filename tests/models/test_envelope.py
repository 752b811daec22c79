"""If an event differs from an earlier event only in its text, `Envelope` finds the text without a parser."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from voice_models import fake_answers as fake
from voice_models.wire_form import FORMS, Envelope, Signal, parsed

CHAT = FORMS["/chat/completions"]
texts = st.one_of(st.text(), st.sampled_from(['"', "\\", '"choices"', "é", "\n", '{"content": "x"}', "\ud800"]))


def data_of(event: bytes) -> bytes:
    return event.removeprefix(b"data: ").removesuffix(b"\n\n")


def written(text: str, **options: Any) -> bytes:
    return json.dumps(json.loads(data_of(fake.delta(text))), **options).encode(errors="surrogatepass")


events = st.one_of(
    st.builds(written, texts, ensure_ascii=st.booleans()),
    st.sampled_from([fake.role(), fake.finish(), fake.usage(), fake.error_frame(), fake.tool_call("{}")]).map(data_of),
)


@st.composite
def run_together(draw: st.DrawFn) -> bytes:
    """Parts of events, joined as a faulty proxy joins them."""
    parts = []
    for event in draw(st.lists(events, min_size=1, max_size=3)):
        start, end = sorted(draw(st.tuples(st.integers(0, len(event)), st.integers(0, len(event)))))
        parts.append(draw(st.sampled_from([event, event[:start], event[end:], event[:start] + event[end:]])))
    return draw(st.sampled_from([b"", b"data: ", b"\n", b"\xff"])).join(parts)


def envelope(event: bytes) -> Envelope:
    found = CHAT.envelope(event, CHAT.piece("message", parsed(event)))
    assert found is not None
    return found


@given(texts, run_together())
def test_with_and_without_a_parser_the_same_text_is_found(first: str, data: bytes) -> None:
    text = envelope(written(first or "x")).text_in(data)
    if text is not None:
        assert CHAT.piece("message", json.loads(data.decode())) == Signal(json.loads(b'"%b"' % text))


@given(texts, texts, st.booleans())
def test_an_event_that_differs_only_in_its_text_is_not_parsed(first: str, second: str, ascii_only: bool) -> None:
    event = written(second, ensure_ascii=ascii_only)
    text = envelope(written(first or "x")).text_in(event)
    # UTF-8 has no lone surrogates, so an event with one may be parsed.
    if ascii_only or not any("\ud800" <= letter <= "\udfff" for letter in second):
        assert text is not None
        assert json.loads(b'"%b"' % text) == second


def test_two_events_in_one_frame_are_parsed() -> None:
    one, two = written("one"), written("two")
    for joined in (one + two, one[:-9] + two, one[:30] + two, one + b"data: " + two):
        assert envelope(one).text_in(joined) is None


def test_an_event_with_more_than_text_has_no_envelope() -> None:
    for event in (fake.role(), fake.finish(), fake.usage(), fake.error_frame(), fake.tool_call("{}")):
        data = data_of(event)
        assert CHAT.envelope(data, CHAT.piece("message", parsed(data))) is None
