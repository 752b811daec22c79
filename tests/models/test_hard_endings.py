from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from voice_models import ModelRefusedError, ModelStreamError, ModelTransport
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, FakeProvider, cut, stall
from voice_policies import Address, Duration, ModelHedge
from voice_runtime.testing import FakeClock

from tests.models.routes import (
    KEY,
    PATIENT,
    QUESTION,
    ROUTE,
    Service,
    ask,
    budget,
    model,
    served_elsewhere,
    service,
    sync_sdk,
    texts,
)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
DELTA = fake.delta("x")


@asynccontextmanager
async def raw(written: bytes) -> AsyncIterator[Address]:
    """A provider that reads a request, writes these bytes and closes the connection."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(written)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    ("written", "found", "contents"),
    [
        (b"", "connection_failed", []),
        (b"HTTP/1.1 20", "connection_failed", []),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "connection_failed", []),
        (HEAD, "connection_failed", []),
        (HEAD + b"\r\n", "truncated", []),
        (HEAD + b"content-length: 10\r\n\r\n", "truncated", []),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\ndata:", "truncated", []),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", "truncated", []),
        (HEAD + b"content-length: 999\r\n\r\n" + DELTA, "truncated", ["x"]),
        (HEAD + b"content-length: 5\r\n\r\n" + DELTA, "truncated", []),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"\r\n" + DELTA + fake.finish(), None, ["x"]),
    ],
    ids=[
        "no answer",
        "half a status line",
        "another protocol",
        "half the headers",
        "no body",
        "a content length without a body",
        "half a chunk",
        "an invalid chunk",
        "fewer bytes than the content length",
        "more bytes than the content length",
        "a complete answer after 100 Continue",
    ],
)
async def test_an_attempt_fails_unless_its_http_answer_is_valid_and_complete(
    tmp_path: Path, written: bytes, found: str | None, contents: list[str]
) -> None:
    b = FakeProvider(lambda _: fake.chat_stream("from B"))
    async with raw(written) as a, b.serve() as port:
        addresses = {"a": a, "b": Address(host="127.0.0.1", port=port)}
        made = service(tmp_path, None, addresses=addresses, route={"timeout": PATIENT})
        received: list[str] = []
        async with httpx.AsyncHTTPTransport() as sockets:
            try:
                async for text in texts(made.sdk(inner=sockets)):
                    received.append(text)  # noqa: PERF401  # an error must not lose earlier contents
            except ModelStreamError as error:
                assert error.error_class == found
        await made.runtime.drain()
    assert received == (contents or ["from B"])
    assert made.ledger.events[0].error_class == found


# --- responses and speech


async def responses(made: Service) -> list[str]:
    stream = await made.sdk().responses.create(model="any", input="tides", stream=True)
    return [event.type async for event in stream]


async def speech(made: Service) -> bytes:
    answer = await made.sdk().audio.speech.create(model="any", input="tides", voice="x")
    return await answer.aread()


def sound(*steps: Any, content_type: str = "audio/pcm") -> Answer:
    return Answer(steps, headers={"content-type": content_type})


@pytest.mark.parametrize(
    ("ask_form", "answer"),
    [
        (responses, fake.streamed([fake.event({"type": "response.failed", "response": None})])),
        (
            responses,
            fake.streamed([fake.event({"type": "response.failed", "response": {"error": {"code": "server_error"}}})]),
        ),
        (responses, fake.streamed([fake.event({"type": 5}), fake.event({"type": "response.completed"})])),
        (responses, fake.streamed([fake.event({"type": "response.completed", "response": {"status": "cancelled"}})])),
        (responses, fake.streamed([fake.event({"type": "response.completed", "response": {"incomplete_details": 3}})])),
        (responses, fake.streamed([b"data: [DONE]\n\n"])),
        (speech, sound()),
        (speech, sound(b"")),
        (speech, sound(cut)),
        (speech, sound(b'{"error": {"code": "server_error"}}', content_type="application/json")),
        (speech, sound(b"{}", content_type="application/json")),
        (speech, sound(b"<html>", content_type="text/html")),
    ],
    ids=[
        "responses: failed without a response",
        "responses: failed with an error",
        "responses: completed without a response",
        "responses: cancelled",
        "responses: incomplete_details is a number",
        "responses: only DONE",
        "speech: no chunk",
        "speech: an empty chunk",
        "speech: a cut connection",
        "speech: an error as JSON",
        "speech: an empty object as JSON",
        "speech: HTML",
    ],
)
async def test_a_call_whose_response_or_speech_has_no_content_goes_to_the_next_candidate(
    tmp_path: Path, clock: FakeClock, ask_form: Callable[[Service], Awaitable[Any]], answer: Answer
) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: answer
    made.b.script = lambda _: fake.responses_stream("x") if ask_form is responses else fake.speech(2)
    assert await ask_form(made)
    assert [event.ending for event in made.ledger.events] == ["failed", "finished"]


async def test_audio_with_a_media_type_in_capital_letters_is_passed_on(tmp_path: Path, clock: FakeClock) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: sound(b"ab", b"cd", content_type="Audio/MPEG; rate=16000")
    assert await speech(made) == b"abcd"


async def test_cut_audio_raises_an_error(tmp_path: Path, clock: FakeClock) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: sound(b"ab", cut)
    with pytest.raises(ModelStreamError):
        await speech(made)


# --- cancellations, budgets, keys and threads


@pytest.mark.parametrize("form", ["stream", "whole", "hedged"])
async def test_a_cancellation_at_any_await_settles_every_attempt(tmp_path: Path, clock: FakeClock, form: str) -> None:
    route: dict[str, Any] = {"budgets": ("minute",)}
    models: dict[str, Any] = {"budgets": {"minute": budget(1_000_000)}}
    if form == "hedged":
        hedge = ModelHedge(delay=Duration("1ms"))
        route |= {"capabilities": ("embeddings",), "output_limit": None, "hedge": hedge}
        models["models"] = {"m": model(capabilities=("embeddings",))}
    made = service(tmp_path, clock, route=route, models=models)
    answer = {"stream": fake.chat_stream("x", "y"), "whole": fake.chat("x"), "hedged": fake.embeddings(delay=0.005)}[
        form
    ]
    fails = False
    made.a.script = lambda _: fake.error(503) if fails else answer
    made.b.script = lambda _: answer

    async def call() -> None:
        if form == "stream":
            await ask(made.sdk())
        elif form == "whole":
            await made.sdk().chat.completions.create(model="any", messages=QUESTION)
        else:
            await made.sdk().embeddings.create(model="any", input="x", encoding_format="float")

    cancelled = 0
    for turns in range(120):
        fails = turns % 2 == 1
        task = asyncio.ensure_future(call())
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns % 3 == 0:
            await asyncio.sleep(0.002)
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        cancelled += isinstance(ended, asyncio.CancelledError)
        await made.runtime.drain()
        assert made.is_settled()
        assert all(exchange.ending != "open" for exchange in made.a.exchanges + made.b.exchanges)
        for name in ("a", "b"):
            made.runtime.runtime.outbound("llm.generate", name).breaker.close()  # type: ignore[union-attr]  # the call has a breaker
    assert cancelled > 10
    assert sum(made.runtime.statistics.calls.values()) <= 120


def budgeted(directory: Path, clock: FakeClock, tokens: int) -> Service:
    return service(directory, clock, route={"budgets": ("minute",)}, models={"budgets": {"minute": budget(tokens)}})


async def held_by_a_call(directory: Path, clock: FakeClock) -> int:
    made = budgeted(directory, clock, 1_000_000)
    made.a.script = lambda _: fake.streamed([stall])
    asking = asyncio.ensure_future(ask(made.sdk()))
    await asyncio.sleep(0.1)
    held = made.held
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return held


@pytest.mark.parametrize(
    ("spare", "admitted"),
    [(0, True), (-1, False), (1, True)],
    ids=["exactly enough", "one token too few", "one token more"],
)
async def test_a_budget_admits_exactly_its_tokens(tmp_path: Path, clock: FakeClock, spare: int, admitted: bool) -> None:
    reserved = await held_by_a_call(tmp_path, clock)
    made = budgeted(tmp_path, clock, reserved + spare)
    if admitted:
        assert await ask(made.sdk())
    else:
        with pytest.raises(ModelRefusedError) as refused:
            await ask(made.sdk())
        assert (refused.value.error_class, refused.value.retry_after) == ("budget_exceeded", None)
        assert made.calls == (0, 0)


async def test_a_key_that_rotates_during_a_stream_applies_to_the_next_call(tmp_path: Path, clock: FakeClock) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: fake.chat_stream("x", "y", "z", gap=0.1)
    received = 0
    async for _ in texts(made.sdk()):
        received += 1
        (tmp_path / "key-a").write_text("sk-rotated\n")
    assert received == 3
    await ask(made.sdk())
    sent = [exchange.request.headers["authorization"] for exchange in made.a.exchanges]
    assert sent == [f"Bearer {KEY}-a", "Bearer sk-rotated"]


def test_threads_share_a_synchronous_client(tmp_path: Path) -> None:
    a = FakeProvider(lambda request: fake.chat_stream(request.headers["x-number"], gap=0.001))
    with served_elsewhere(a) as addresses:
        made = service(tmp_path, None, addresses=addresses, route={"timeout": PATIENT})
        client = sync_sdk(made)

        def call(number: int) -> str:
            chunks = client.chat.completions.create(
                model="any", messages=QUESTION, stream=True, extra_headers={"x-number": str(number)}
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(call, range(40))) == [str(number) for number in range(40)]
        client.close()
    assert [event.ending for event in made.ledger.events] == ["finished"] * 40
    assert made.runtime.statistics.calls == {("llm.generate", "successful"): 40}


def test_a_client_works_on_a_new_event_loop_after_the_previous_loop_has_ended(tmp_path: Path) -> None:
    with served_elsewhere(FakeProvider(lambda _: fake.chat("x"))) as addresses:
        made = service(tmp_path, None, route={"timeout": PATIENT}, addresses=addresses)
        client = httpx.AsyncClient(transport=ModelTransport(made.runtime, ROUTE))

        async def asked() -> int:
            return (await client.post("http://ignored/v1/chat/completions", json={"messages": QUESTION})).status_code

        assert [asyncio.run(asked()) for _ in range(3)] == [200] * 3
