from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from openai import APIConnectionError, AsyncOpenAI, InternalServerError
from voice_models import fake_answers
from voice_models.fake_provider import Answer, FakeNetwork, FakeProvider, Pause, cut, stall
from voice_runtime.testing import FakeClock

from tests.loopback import START_SECONDS


def sdk(provider: FakeProvider) -> AsyncOpenAI:
    network = FakeNetwork({"fake": provider})
    client = httpx.AsyncClient(transport=network)
    return AsyncOpenAI(api_key="none", base_url="http://fake/v1", max_retries=0, http_client=client)  # type: ignore[arg-type]  # the SDK accepts httpx and declares httpx2


@asynccontextmanager
async def served(provider: FakeProvider) -> AsyncIterator[AsyncOpenAI]:
    async with (
        provider.serve() as port,
        AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client,
    ):
        yield client


def answering(answer: Answer) -> FakeProvider:
    return FakeProvider(lambda _: answer)


async def text_of(client: AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "q"}], stream=True, timeout=None
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def test_the_fake_provider_answers_each_kind_of_request_over_a_socket() -> None:
    provider = answering(fake_answers.chat("whole"))
    async with served(provider) as client:
        whole = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])
        assert whole.choices[0].message.content == "whole"
        provider.script = lambda _: fake_answers.chat_stream("to", " be", gap=0.001)
        assert await text_of(client) == "to be"
        provider.script = lambda _: fake_answers.responses_stream("to", " be")
        events = [event async for event in await client.responses.create(model="m", input="q", stream=True)]
        assert [event.type for event in events][-1] == "response.completed"
        provider.script = lambda _: fake_answers.embeddings(2)
        assert len((await client.embeddings.create(model="m", input=["a", "b"])).data) == 2
        provider.script = lambda _: fake_answers.speech(3, gap=0.0)
        spoken = await client.audio.speech.create(model="m", voice="alloy", input="q")
        assert len(spoken.content) == 3 * 640  # 640 bytes in each chunk
        provider.script = lambda _: fake_answers.transcription("heard")
        heard = await client.audio.transcriptions.create(model="m", file=("a.wav", b"RIFF"))
        assert heard.text == "heard"
    assert [exchange.ending for exchange in provider.exchanges] == ["complete"] * 6
    assert provider.exchanges[0].request.json()["model"] == "m"


async def test_the_fake_provider_sends_faults_over_a_socket() -> None:
    provider = answering(fake_answers.error(503))
    async with served(provider) as client:
        with pytest.raises(InternalServerError):
            await text_of(client)
        provider.script = lambda _: fake_answers.streamed([fake_answers.delta("a"), cut])
        with pytest.raises((APIConnectionError, httpx.HTTPError)):
            await text_of(client)
    assert [exchange.ending for exchange in provider.exchanges] == ["complete", "cut"]


async def test_the_fake_provider_notices_over_a_socket_that_its_client_has_left() -> None:
    provider = answering(fake_answers.streamed([fake_answers.delta("a"), stall, fake_answers.delta("b")]))
    async with asyncio.timeout(START_SECONDS), served(provider) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "q"}], stream=True
        )
        await anext(aiter(stream))
        await stream.close()
        await provider.exchanges[0].ended.wait()
    assert (provider.exchanges[0].ending, provider.exchanges[0].written) == ("closed_by_client", 1)


async def test_the_fake_provider_notices_that_a_client_leaves_before_the_status_is_sent() -> None:
    provider = answering(Answer((b"a",), delay=stall.seconds))
    async with asyncio.timeout(START_SECONDS), provider.serve() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        while not provider.exchanges:  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.01)
        writer.close()
        await provider.exchanges[0].ended.wait()
    assert provider.exchanges[0].ending == "closed_by_client"


async def test_a_client_of_the_fake_network_may_leave_before_the_first_byte(clock: FakeClock) -> None:
    provider = answering(Answer((b"a",)))
    client = httpx.AsyncClient(transport=FakeNetwork({"fake": provider}))
    response = await client.send(client.build_request("GET", "http://fake/"), stream=True)
    await response.aclose()
    (exchange,) = provider.exchanges
    assert (exchange.ending, exchange.written, exchange.ended_at) == ("closed_by_client", 0, clock.monotonic())
    assert exchange.ended.is_set()


async def test_a_fake_provider_that_accepts_no_connection_closes_new_and_idle_connections() -> None:
    provider = answering(Answer((b"a",)))
    async with asyncio.timeout(START_SECONDS), provider.serve() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"0\r\n\r\n")
        provider.accepts = False
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):  # if the server closed before it read the request
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""  # although the client has sent no request
        writer.close()
    assert len(provider.exchanges) == 1


async def test_the_fake_provider_writes_at_the_given_times_on_a_fake_clock(clock: FakeClock) -> None:
    began = clock.monotonic()
    provider = answering(fake_answers.chat_stream("a", "b", first=0.1, gap=0.02))
    assert await text_of(sdk(provider)) == "ab"
    # The role arrives after 0.1 s. Five parts follow, 0.02 s apart: "a", "b", the end of the content, usage and [DONE].
    assert provider.exchanges[0].ended_at - began == pytest.approx(0.1 + 5 * 0.02)


async def test_the_fake_provider_refuses_and_delays_connections_on_a_fake_clock(clock: FakeClock) -> None:
    provider = answering(fake_answers.chat("late"))
    client = httpx.AsyncClient(transport=FakeNetwork({"fake": provider}))
    provider.connect_delay = 0.5
    began = clock.monotonic()
    with pytest.raises(httpx.ConnectTimeout):
        await client.get("http://fake/", timeout=httpx.Timeout(None, connect=0.25))
    assert clock.monotonic() - began == pytest.approx(0.25)
    provider.connect_delay, provider.accepts = 0.0, False
    with pytest.raises(httpx.ConnectError):
        await client.get("http://fake/")
    assert provider.exchanges == []


async def test_a_pause_delays_the_next_bytes(clock: FakeClock) -> None:
    provider = answering(Answer((b"a", Pause(3), b"b")))
    began = clock.monotonic()
    assert (await httpx.AsyncClient(transport=FakeNetwork({"fake": provider})).get("http://fake/")).content == b"ab"
    assert clock.monotonic() - began == pytest.approx(3)
