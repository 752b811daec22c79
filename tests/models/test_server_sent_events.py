from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from voice_models.server_sent_events import Frame, FrameParser

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12).map(str.encode)
lines = st.one_of(
    st.builds(b"data: %b".__mod__, texts),
    st.builds(b"data:%b".__mod__, texts.filter(lambda text: not text.startswith(b" "))),
    st.builds(b"event: %b".__mod__, st.sampled_from([b"error", b"response.created"])),
    st.builds(b": %b".__mod__, texts),
    st.just(b"id: 1"),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    written = b""
    for frame in draw(st.lists(st.lists(lines, min_size=1, max_size=4), max_size=6)):
        end = draw(line_ends)
        written += b"".join(line + end for line in frame) + end
    return written + draw(st.sampled_from([b"", b"data: incomplete", b"data: incomplete\n"]))


@st.composite
def pieces(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def parsed(chunks: list[bytes]) -> tuple[list[Frame], int]:
    parser = FrameParser()
    frames = [frame for chunk in chunks for frame in parser.feed(chunk)]
    return frames, parser.pending


def meaning(frames: list[Frame]) -> list[tuple[str, bytes | None]]:
    return [(frame.event, frame.data) for frame in frames if frame.data is not None]


@given(st.data())
def test_any_division_into_chunks_gives_the_same_events(data: st.DataObject) -> None:
    whole = data.draw(streams())
    undivided, _ = parsed([whole])
    in_pieces, _ = parsed(data.draw(pieces(whole)))
    one_by_one, _ = parsed([bytes([byte]) for byte in whole])
    assert meaning(in_pieces) == meaning(one_by_one) == meaning(undivided)


@given(st.data())
def test_no_byte_is_lost_or_repeated(data: st.DataObject) -> None:
    whole = data.draw(st.one_of(streams(), st.binary(max_size=60)))
    frames, pending = parsed(data.draw(pieces(whole)))
    handed_on = b"".join(frame.raw for frame in frames)
    assert whole.startswith(handed_on)
    assert len(handed_on) + pending == len(whole)


def test_data_lines_are_joined_and_one_space_is_removed() -> None:
    frames, _ = parsed([b"event: note\ndata:  two\ndata: lines\n\n"])
    assert frames == [Frame(b"event: note\ndata:  two\ndata: lines\n\n", "note", b" two\nlines")]


def test_a_comment_is_a_frame_without_data() -> None:
    frames, _ = parsed([b": ping\n\n"])
    assert frames == [Frame(b": ping\n\n", "message", None)]


def test_a_byte_order_mark_is_ignored_at_the_start_of_the_stream_only() -> None:
    marked = b"\xef\xbb\xbfdata: 1\n\n"
    for chunks in ([marked, marked], [bytes([byte]) for byte in marked + marked], [marked + marked]):
        assert [frame.data for frame in parsed(chunks)[0]] == [b"1", None]
    assert [frame.data for frame in parsed([b"data: 1\n\n", marked])[0]] == [b"1", None]


def test_an_incomplete_frame_is_pending_and_gives_no_event() -> None:
    assert parsed([b"data: 1\n\ndata: 2\n"]) == ([Frame(b"data: 1\n\n", "message", b"1")], 8)


def test_a_line_end_may_span_two_chunks() -> None:
    frames, _ = parsed([b"data: 1\r", b"\ndata: 2\r", b"\n\r", b"\ndata: 3\r\n\r\n"])
    assert meaning(frames) == [("message", b"1\n2"), ("message", b"3")]
