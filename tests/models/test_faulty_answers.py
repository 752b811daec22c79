from __future__ import annotations

import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from voice_models import ModelAttemptError, ModelStreamError, ModelTransport
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, Step, cut
from voice_runtime.testing import FakeClock

from tests.models.routes import ANSWER, QUESTION, ROUTE, Driver, Service, ask, service

FROM_A, FROM_B = f"{ANSWER}A", f"{ANSWER}B"
DONE = b"data: [DONE]\n\n"
HTML = {"content-type": "text/html"}
JSON = {"content-type": "application/json"}
WORDS = ("naïve ", "“tide” ", "満潮")


@pytest.fixture
def tested(tmp_path: Path, clock: FakeClock) -> Service:
    return service(tmp_path, clock)


def first(made: Service, answer: Answer) -> None:
    """Provider A gives this answer once, and healthy answers afterwards."""
    left = [answer]
    made.a.script = lambda _: left.pop() if left else fake.chat_stream(ANSWER, "A")


def stream(*steps: Step) -> Answer:
    return fake.streamed(steps)


def healthy() -> bytes:
    return b"".join(step for step in fake.chat_stream(*WORDS).steps if isinstance(step, bytes))


# --- frames


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64], ids="chunks of {}".format)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_chunk_size_and_line_end_do_not_change_the_content_of_a_stream(
    driver: Driver, tested: Service, size: int, line_end: bytes
) -> None:
    whole = healthy().replace(b"\n", line_end)
    first(tested, stream(*[whole[start : start + size] for start in range(0, len(whole), size)]))
    assert driver.ask(tested) == "".join(WORDS)
    (event,) = tested.ledger.events
    assert (event.ending, event.output_tokens, event.estimated) == ("finished", 5, False)


@pytest.mark.parametrize(
    "steps",
    [
        [b": ping\n\n"] * 3,
        [DONE],
        [DONE, fake.delta("late"), fake.finish(), DONE],
        [fake.usage(), DONE],
        [fake.role(), fake.usage()],
        [b"\n\n\n\n"],
        [b""],
        [b"event: error\ndata: {}\n\n"],
        [b'event: error\ndata: {"message": "overloaded"}\n\n', fake.delta("late"), fake.finish()],
        [b'data: {"error": "overloaded"}\n\n'],
        [b'data: {"choices": [1]}\n\n'],
        [b'data: {"choices": {"delta": 1}}\n\n'],
        [b'data: {"choices": [{"delta": "x"}]}\n\n'],
        [b'data: {"choices": [{"delta": {"content": 5}, "finish_reason": []}]}\n\n'],
        [b"data: " + b"[" * 100_000 + b"\n\n"],
        [b"data: \xff\n\n"],
        [fake.finish("error")],
        [gzip.compress(healthy(), mtime=0)],
    ],
    ids=lambda steps: repr(steps[0][:40]),
)
def test_after_a_fault_before_the_first_content_the_next_candidate_answers(
    driver: Driver, tested: Service, steps: list[bytes]
) -> None:
    first(tested, stream(*steps))
    assert driver.received(tested) == ([ANSWER, "B"], None)
    assert tested.ledger.events[0].ending == "failed"


@pytest.mark.parametrize(
    "steps",
    [
        [fake.finish(), fake.usage()],
        [fake.finish(), fake.usage(), DONE, DONE],
        [fake.finish(), DONE, fake.error_frame()],
        [fake.finish(), fake.error_frame(), DONE],
        [fake.finish(), b"data: [DONE] \n\n"],
        [fake.finish(), b"data:[DONE]\n\n"],
        [b"data:\n\n", fake.finish(), DONE],
        [b"id: 1\nretry: 5\n\n", fake.finish(), DONE],
        [b"\xef\xbb\xbf: ping\n\n", fake.finish(), DONE],
        [fake.finish(), cut],
        [fake.event({"choices": [], "error": ""}), fake.event({"choices": [], "error": {}}), fake.finish(), DONE],
    ],
    ids=[
        "no DONE",
        "two DONE",
        "an error after DONE",
        "an error after the finish reason",
        "a space after DONE",
        "no space before DONE",
        "an empty event",
        "fields without data",
        "a byte order mark",
        "a cut connection",
        "empty errors",
    ],
)
def test_an_answer_with_a_finish_reason_is_a_success_despite_faults_before_or_after_the_finish_reason(
    driver: Driver, tested: Service, steps: list[Step]
) -> None:
    first(tested, stream(fake.role(), fake.delta("x"), *steps))
    assert driver.received(tested) == (["x"], None)
    assert [event.ending for event in tested.ledger.events] == ["finished"]


@pytest.mark.parametrize(
    "steps",
    [
        [b"event: error\ndata: {}\n\n", fake.finish()],
        [b'data: {"choices": [1]}\n\n', fake.finish()],
        [b'data: {"choices": [{"delta": {"content": {}}, "index": 0}], "usage": 3, "error": {}}\n\n'],
        [b"data: " + b"[" * 100_000 + b"\n\n", fake.finish()],
        [fake.finish("error")],
        [DONE],
    ],
    ids=[
        "an error event",
        "a choice that is a number",
        "a content that is an object",
        "deeply nested data",
        "error as the finish reason",
        "DONE without a finish reason",
    ],
)
def test_a_fault_after_content_ends_the_answer_with_a_typed_error(
    driver: Driver, tested: Service, steps: list[Step]
) -> None:
    first(tested, stream(fake.delta("x"), *steps))
    contents, error = driver.received(tested)
    assert contents == ["x"]
    assert isinstance(error, ModelStreamError)
    assert tested.calls == (1, 0)


def choice(index: int, text: str = "", reason: str | None = None) -> bytes:
    delta = {"index": index, "delta": {"content": text}, "finish_reason": reason}
    return fake.event({"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [delta]})


async def test_an_answer_of_two_choices_is_complete_when_both_choices_are_finished(tested: Service) -> None:
    first(tested, stream(choice(0, "x"), choice(0, reason="stop"), choice(1, "y"), cut))
    received = await tested.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True, n=2)
    with pytest.raises(ModelStreamError):
        [chunk async for chunk in received]
    first(tested, stream(choice(0, "x"), choice(0, reason="stop"), choice(1, "y"), choice(1, reason="stop"), cut))
    received = await tested.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True, n=2)
    assert len([chunk async for chunk in received]) == 4


@pytest.mark.parametrize(
    "spent",
    [
        {"prompt_tokens": -5, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -9},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**30},
        {"prompt_tokens": 1.5},
    ],
    ids=["negative input", "negative output", "a boolean", "too large", "a fraction"],
)
def test_an_impossible_usage_is_replaced_by_an_estimate(
    driver: Driver, tested: Service, spent: Mapping[str, Any]
) -> None:
    first(tested, stream(fake.delta("x"), fake.finish(), fake.event({"choices": [], "usage": dict(spent)}), DONE))
    assert driver.ask(tested) == "x"
    (event,) = tested.ledger.events
    assert event.estimated
    assert event.input_units > 0


# --- statuses and bodies


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b'{"error": null}', b"null", b"[]", gzip.compress(b"{}", mtime=0), b"[" * 100_000],
    ids=["no body", "HTML", "error null", "null", "a list", "gzip", "deeply nested"],
)
@pytest.mark.parametrize(
    ("status", "found"),
    [
        (302, "server_error"),
        (400, "invalid_request"),
        (401, "authentication"),
        (404, "model_not_found"),
        (408, "server_error"),
        (409, "server_error"),
        (425, "server_error"),
        (429, "rate_limited"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "overloaded"),
        (504, "server_error"),
        (529, "overloaded"),
    ],
)
async def test_the_status_determines_the_error_class_if_the_body_names_no_error(
    tested: Service, status: int, found: str, body: bytes
) -> None:
    first(tested, Answer((body,), status, HTML))
    try:
        answer = await tested.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True)
        [chunk async for chunk in answer]
    except ModelAttemptError as error:
        assert found == error.error_class == "invalid_request"
    assert tested.ledger.events[0].error_class == found


@pytest.mark.parametrize(
    "word",
    ["0", "-1", "soon", "Mon, 30 Nov 2020 08:00:00 GMT", "9" * 400],
    ids=["zero", "negative", "a word", "a past date", "400 digits"],
)
def test_a_rate_limit_causes_a_cooldown_whatever_retry_after_says(
    driver: Driver, tested: Service, clock: FakeClock, word: str
) -> None:
    first(tested, fake.error(429, headers={"retry-after": word, "date": "Mon, 30 Nov 2026 08:00:00 GMT"}))
    assert driver.ask(tested) == FROM_B
    clock.advance(4.9)
    assert driver.ask(tested) == FROM_B
    assert all(event.error_class is None for event in tested.ledger.events[1:])


@pytest.mark.parametrize(
    "answer",
    [
        fake.chat("whole"),
        Answer((healthy(),), headers=JSON),
        Answer((healthy(),), headers=HTML),
        Answer((healthy(),)),
        Answer((), headers={"content-type": "text/event-stream"}),
        Answer((b"",), headers=JSON),
        Answer((b"null",), headers=JSON),
        Answer((), status=204),
    ],
    ids=[
        "a whole answer",
        "a stream as JSON",
        "a stream as HTML",
        "a stream without a content type",
        "an empty stream",
        "an empty body",
        "null",
        "status 204",
    ],
)
def test_after_an_answer_without_a_valid_stream_the_next_candidate_answers(
    driver: Driver, tested: Service, answer: Answer
) -> None:
    first(tested, answer)
    assert driver.received(tested) == ([ANSWER, "B"], None)


@pytest.mark.parametrize(
    "content_type", ["Text/Event-Stream", "text/event-stream; charset=utf-8", "TEXT/EVENT-STREAM;charset=UTF-8"]
)
def test_the_content_type_is_read_in_any_letter_case(driver: Driver, tested: Service, content_type: str) -> None:
    first(tested, Answer(fake.chat_stream("x").steps, headers={"content-type": content_type}))
    assert driver.ask(tested) == "x"


async def test_after_a_stream_instead_of_a_whole_answer_the_next_candidate_answers(tested: Service) -> None:
    first(tested, fake.chat_stream("x"))
    tested.b.script = lambda _: fake.chat("whole")
    answer = await tested.sdk().chat.completions.create(model="any", messages=QUESTION)
    assert answer.choices[0].message.content == "whole"


async def test_a_compressed_answer_is_read_and_after_a_corrupt_one_the_next_candidate_answers(tested: Service) -> None:
    whole = gzip.compress(json.dumps(json.loads(fake.chat("packed").steps[0])).encode())  # type: ignore[arg-type]  # bytes
    first(tested, Answer((whole[:20], whole[20:]), headers={**JSON, "content-encoding": "gzip"}))
    answer = await tested.sdk().chat.completions.create(model="any", messages=QUESTION)
    assert answer.choices[0].message.content == "packed"
    first(tested, Answer((b"not gzip",), headers={**JSON, "content-encoding": "gzip"}))
    tested.b.script = lambda _: fake.chat("whole")
    answer = await tested.sdk().chat.completions.create(model="any", messages=QUESTION)
    assert answer.choices[0].message.content == "whole"


# --- keys


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\xff\xfe", b"two\nlines", "schlüssel".encode()],
    ids=["empty", "a line feed", "not text", "two lines", "not ASCII"],
)
async def test_a_key_that_cannot_be_sent_fails_the_attempt_and_the_next_candidate_answers(
    tmp_path: Path, tested: Service, content: bytes
) -> None:
    (tmp_path / "key-a").write_bytes(content)
    answer = await tested.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True)
    assert len([chunk async for chunk in answer]) > 1
    assert [event.error_class for event in tested.ledger.events] == ["authentication", None]
    assert not tested.a.exchanges


async def test_a_connection_that_fails_below_httpx_is_no_fault_of_the_key(tested: Service) -> None:
    async def send(request: httpx.Request) -> httpx.Response:
        if request.url.host == "a.example":
            raise ssl.SSLError("bad record mac")
        return await tested.network.handle_async_request(request)

    assert await ask(tested.sdk(inner=Network(send))) == FROM_B
    assert [event.error_class for event in tested.ledger.events] == ["connection_failed", None]
    assert await ask(tested.sdk()) == FROM_A


# --- headers, and the end of the connection


class Network(httpx.AsyncBaseTransport):
    def __init__(self, send: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self.send = send

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.send(request)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_header_that_is_not_ascii_reaches_the_caller_unchanged(tested: Service, *, streamed: bool) -> None:
    async def send(request: httpx.Request) -> httpx.Response:
        answer = await tested.network.handle_async_request(request)
        answer.headers = httpx.Headers([*answer.headers.raw, (b"x-city", "Zürich".encode())])
        return answer

    tested.a.script = lambda _: fake.chat_stream("x") if streamed else fake.chat("x")
    client = httpx.AsyncClient(transport=ModelTransport(tested.runtime, ROUTE, Network(send)))
    body = {"messages": QUESTION, "stream": streamed}
    answer = await client.post("http://ignored/v1/chat/completions", json=body)
    assert answer.headers["x-city"] == "Zürich"


class FailsToClose(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self.stream:
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()
        raise BrokenPipeError


@pytest.mark.parametrize("status", [200, 503])
async def test_a_connection_that_fails_while_it_closes_changes_no_answer(tested: Service, status: int) -> None:
    async def send(request: httpx.Request) -> httpx.Response:
        answer = await tested.network.handle_async_request(request)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        answer.stream = FailsToClose(answer.stream)
        return answer

    if status != 200:
        first(tested, fake.error(status))
    assert await ask(tested.sdk(inner=Network(send))) == (FROM_A if status == 200 else FROM_B)


# --- content in other fields than the text


@pytest.mark.parametrize(
    "content", [{"reasoning": "hm " * 30}, {"audio": {"data": "UklGRg" * 20}}, {"audio": {"transcript": "hm " * 30}}]
)
async def test_long_reasoning_and_audio_are_content(tested: Service, content: dict[str, Any]) -> None:
    chunk = fake.event({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": content}]})
    first(tested, stream(*[chunk] * 700, *fake.chat_stream("yes").steps))
    assert await ask(tested.sdk()) == "yes"
    assert tested.calls == (1, 0)
