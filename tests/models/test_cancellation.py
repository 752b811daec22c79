from __future__ import annotations

import asyncio
import gc
import signal
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from voice_models import SyncModelTransport
from voice_models import fake_answers as fake
from voice_models.fake_provider import FakeProvider, stall
from voice_policies import Duration
from voice_runtime import Caller
from voice_runtime.shared_store import LoopThread
from voice_runtime.testing import FakeClock

from tests.bundles import operation
from tests.loopback import START_SECONDS
from tests.models.routes import (
    PATIENT,
    QUESTION,
    ROUTE,
    Service,
    ask,
    budget,
    served,
    served_elsewhere,
    service,
    sync_sdk,
    texts,
    texts_sync,
)

CLOSED = 0.1
"""Longest time between the cancellation of a call and the close of its connection, in seconds."""


def budgeted(tmp_path: Path, clock: FakeClock | None, route: dict[str, Any] | None = None, **more: Any) -> Service:
    limits = {"budgets": ("day",), **(route or {})}
    return service(tmp_path, clock, models={"budgets": {"day": budget()}}, route=limits, **more)


async def cancel_and_check(made: Service, asking: asyncio.Task[Any], clock: FakeClock) -> None:
    await asyncio.sleep(0.2)
    left_at = clock.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert made.a.exchanges[0].ending == "closed_by_client"
    assert made.a.exchanges[0].ended_at - left_at <= CLOSED
    assert made.calls == (1, 0)


async def test_mc18_the_connection_closes_when_the_caller_leaves_before_the_first_content(
    tmp_path: Path, clock: FakeClock
) -> None:
    made = budgeted(tmp_path, clock)
    made.a.script = lambda _: fake.streamed([fake.role(), stall])
    asking = asyncio.create_task(ask(made.sdk()))
    await cancel_and_check(made, asking, clock)
    (event,) = made.ledger.events
    assert (event.ending, event.estimated, event.output_tokens) == ("cancelled", True, 0)
    assert event.input_units > 0
    assert made.is_settled()
    breaker = made.runtime.runtime.outbound("llm.generate", "a").breaker
    assert breaker is not None
    assert (breaker.failed, breaker.ignored) == (0, 1)


@pytest.mark.parametrize("moment", ["before the headers", "inside the body"])
async def test_mc18_the_connection_closes_when_the_caller_of_a_whole_answer_leaves(
    tmp_path: Path, clock: FakeClock, moment: str
) -> None:
    made = budgeted(tmp_path, clock)
    late = fake.chat("late", delay=10) if moment == "before the headers" else fake.streamed([b"{", stall])
    made.a.script = lambda _: late
    asking = asyncio.create_task(made.sdk().chat.completions.create(model="any", messages=QUESTION))
    await cancel_and_check(made, asking, clock)
    assert [event.ending for event in made.ledger.events] == ["cancelled"]
    assert made.is_settled()


async def test_the_connection_closes_at_the_deadline_of_the_request(tmp_path: Path, clock: FakeClock) -> None:
    made = budgeted(tmp_path, clock, inbound=(operation("chat", deadline=Duration("400ms")),))
    made.a.script = lambda _: fake.streamed([fake.delta("x"), stall])
    with pytest.raises(TimeoutError):
        async with made.runtime.runtime.request("chat", Caller(tenant="acme")):
            await ask(made.sdk())
    assert made.a.exchanges[0].ending == "closed_by_client"
    assert made.ledger.events[0].tenant == "acme"
    assert made.is_settled()


async def test_mc19_the_provider_stops_sending_when_the_caller_leaves_after_the_tenth_delta(tmp_path: Path) -> None:
    a, b = (FakeProvider(lambda _: fake.chat_stream(*["x"] * 500, gap=0.02)) for _ in range(2))
    async with asyncio.timeout(START_SECONDS), served(a, b) as addresses:
        made = budgeted(tmp_path, None, {"timeout": PATIENT}, addresses=addresses)
        received = 0
        async with httpx.AsyncHTTPTransport() as sockets:
            async for _ in texts(made.sdk(inner=sockets)):
                received += 1
                if received == 10:
                    break
            await a.exchanges[0].ended.wait()
        await made.runtime.drain()
    assert (a.exchanges[0].ending, b.exchanges) == ("closed_by_client", [])
    assert a.exchanges[0].written <= 1 + 15
    assert [(event.ending, event.output_tokens) for event in made.ledger.events] == [("cancelled", 5)]
    assert made.is_settled()


# --- without an event loop, over sockets


def wait_for_the_end(provider: FakeProvider) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not provider.exchanges or provider.exchanges[0].ending == "open" or not provider.exchanges[0].ended_at:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class LeftError(Exception):
    pass


def test_mc18_an_interrupted_thread_closes_the_connection(tmp_path: Path) -> None:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise LeftError

    a = FakeProvider(lambda _: fake.streamed([fake.role(), stall]))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with served_elsewhere(a) as addresses:
            made = budgeted(tmp_path, None, {"timeout": PATIENT}, addresses=addresses)
            client = sync_sdk(made)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(LeftError):
                list(texts_sync(client))
            if a.exchanges:  # on a busy machine the signal may come before the client has connected
                wait_for_the_end(a)
            client.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [exchange.ending for exchange in a.exchanges] in (["closed_by_client"], [])
    assert [event.ending for event in made.ledger.events] == ["cancelled"]
    assert made.is_settled()


def test_mc19_the_provider_stops_sending_when_a_synchronous_caller_leaves(tmp_path: Path) -> None:
    a = FakeProvider(lambda _: fake.chat_stream(*["x"] * 500, gap=0.02))
    with served_elsewhere(a) as addresses:
        made = budgeted(tmp_path, None, {"timeout": PATIENT}, addresses=addresses)
        client = sync_sdk(made)
        with closing(texts_sync(client)) as stream:
            assert len(list(islice(stream, 10))) == 10
        wait_for_the_end(a)
        client.close()
    assert a.exchanges[0].ending == "closed_by_client"
    assert a.exchanges[0].written < 500
    assert [event.ending for event in made.ledger.events] == ["cancelled"]
    assert made.is_settled()


def test_dropping_a_synchronous_stream_in_the_event_loop_does_not_block_the_event_loop(tmp_path: Path) -> None:
    a, thread = FakeProvider(lambda _: fake.streamed([fake.delta("x"), stall])), LoopThread()

    async def drop() -> None:
        dropped.clear()

    with served_elsewhere(a) as addresses:
        made = budgeted(tmp_path, None, {"timeout": PATIENT}, addresses=addresses)
        client = httpx.Client(transport=SyncModelTransport(made.runtime, ROUTE, thread=thread))
        body = {"messages": QUESTION, "stream": True}
        request = client.build_request("POST", "http://ignored/v1/chat/completions", json=body)
        response = client.send(request, stream=True)
        dropped = [iter(response.stream)]  # type: ignore[arg-type]  # the stream of a synchronous transport
        assert next(dropped[0])
        response.stream = httpx.ByteStream(b"")
        thread.start(drop()).result(START_SECONDS)
        wait_for_the_end(a)
    assert a.exchanges[0].ending == "closed_by_client"


# --- another task closes the answer, or the event loop has ended


@pytest.mark.parametrize("over_sockets", [True, False])
async def test_closing_an_answer_during_a_read_counts_as_no_failure(tmp_path: Path, *, over_sockets: bool) -> None:
    a, b = (FakeProvider(lambda _: fake.streamed([fake.delta("x"), stall])) for _ in range(2))
    async with asyncio.timeout(START_SECONDS), served(a, b) as addresses, httpx.AsyncHTTPTransport() as sockets:
        made = budgeted(tmp_path, None, {"timeout": PATIENT}, addresses=addresses if over_sockets else None)
        made.a.script = a.script
        client = made.sdk(inner=sockets if over_sockets else None)
        stream = await client.chat.completions.create(model="any", messages=QUESTION, stream=True)
        await anext(stream)
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await stream.response.aclose()
        with pytest.raises(httpx.StreamClosed):
            await reading
        await made.runtime.drain()
    breaker = made.runtime.runtime.outbound("llm.generate", "a").breaker
    assert breaker is not None
    assert (breaker.failed, breaker.ignored) == (0, 1)
    assert [event.ending for event in made.ledger.events] == ["cancelled"]
    assert made.is_settled()


def test_the_budget_of_a_dropped_answer_is_settled_after_the_end_of_the_event_loop(tmp_path: Path) -> None:
    made = budgeted(tmp_path, None)

    async def unread() -> object:
        return await made.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True)

    dropped = [asyncio.run(unread())]
    dropped.clear()
    gc.collect()
    deadline = time.monotonic() + START_SECONDS
    while not made.is_settled():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [event.ending for event in made.ledger.events] == ["cancelled"]
