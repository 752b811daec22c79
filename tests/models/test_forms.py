from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BaseModel
from voice_models import ModelAttemptError, ModelRefusedError, ModelRuntime, ModelStreamError, ModelTransport
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer, cut
from voice_models.request import ModelRequest
from voice_policies import Address, ModelPrice
from voice_runtime import Runtime, UnknownCallError
from voice_runtime.testing import FakeClock

from tests.bundles import bundle, call, mount
from tests.models.routes import KEY, PRICE, QUESTION, Service, ask, model, service


@pytest.fixture
def made(tmp_path: Path, clock: FakeClock) -> Service:
    return service(tmp_path, clock)


def first(made: Service, *answers: Answer) -> None:
    left = list(answers)
    made.a.script = lambda _: left.pop(0)


# --- the request to a candidate


async def test_a_request_has_host_path_key_and_model_of_the_candidate(made: Service) -> None:
    await ask(made.sdk())
    request = made.a.exchanges[0].request
    assert (request.path, request.headers["host"]) == ("/v1/chat/completions", "a.example")
    assert request.headers["authorization"] == f"Bearer {KEY}-a"
    assert request.headers["accept-encoding"] == "identity"
    assert request.json()["model"] == "m"
    assert request.json()["messages"] == QUESTION


async def test_a_request_through_the_egress_proxy_has_the_providers_server_name(
    tmp_path: Path, clock: FakeClock
) -> None:
    address = Address(host="api.a.example", port=443, via="egress-proxy:8443")
    sent: list[httpx.Request] = []

    async def proxy(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(503)

    found = service(tmp_path, clock, addresses={"a": address, "b": address})
    with pytest.raises(ModelAttemptError):
        await ask(found.sdk(inner=httpx.MockTransport(proxy)))
    url, extensions = sent[0].url, sent[0].extensions
    assert (url.scheme, url.host, url.port) == ("https", "egress-proxy", 8443)
    assert (sent[0].headers["host"], extensions["sni_hostname"]) == ("api.a.example", "api.a.example")


async def test_the_key_is_read_for_each_attempt(made: Service, tmp_path: Path) -> None:
    (tmp_path / "key-a").write_text("sk-rotated")
    await ask(made.sdk())
    assert made.a.exchanges[0].request.headers["authorization"] == "Bearer sk-rotated"


async def test_after_a_missing_key_the_next_candidate_answers(made: Service, tmp_path: Path) -> None:
    (tmp_path / "key-a").unlink()
    assert await ask(made.sdk()) == "the-answer-of-B"
    assert made.ledger.events[-2].error_class == "authentication"
    assert made.ledger.events[-2].micro_usd == 0


@pytest.mark.parametrize("asked", [None, 50, 500], ids=["no limit", "a smaller limit", "a larger limit"])
async def test_the_routes_output_limit_applies_unless_the_request_has_a_smaller_limit(
    made: Service, asked: int | None
) -> None:
    more: dict[str, Any] = {} if asked is None else {"max_tokens": asked}
    await made.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True, **more)
    body = made.a.exchanges[0].request.json()
    expected = ("max_tokens", 50) if asked == 50 else ("max_completion_tokens", 100)
    assert [(name, body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body] == [expected]


@pytest.mark.parametrize("choices", [1, 3, 1000])
def test_a_request_reserves_the_tokens_that_its_choices_may_use_together(choices: int) -> None:
    sent = httpx.Request("POST", "https://a.example/v1/chat/completions", json={"n": choices})
    request = ModelRequest(sent, sent.content, output_limit=100)
    assert request.max_output == choices * request.body["max_completion_tokens"]


async def test_a_request_larger_than_every_context_window_is_refused_before_sending(
    tmp_path: Path, clock: FakeClock
) -> None:
    found = service(tmp_path, clock, models={"models": {"m": model(context_window=90)}})
    with pytest.raises(ModelRefusedError, match="context_exceeded"):
        await ask(found.sdk())
    assert found.calls == (0, 0)


async def test_the_error_for_an_unknown_endpoint_names_the_known_endpoints(made: Service) -> None:
    with pytest.raises(ValueError, match="/chat/completions, /responses"):
        await made.sdk().models.list()


def test_a_call_without_a_route_is_refused_when_its_transport_is_created(tmp_path: Path) -> None:
    runtime = ModelRuntime(Runtime.load(mount(tmp_path, bundle(call("search.find")))))
    with pytest.raises(UnknownCallError):
        ModelTransport(runtime, "search.find")


# --- the SDK


async def test_the_sdk_never_retries_although_it_is_configured_to(made: Service) -> None:
    made.a.script = made.b.script = lambda _: fake.error(500, headers={"x-should-retry": "true"})
    client = made.sdk()
    assert client.max_retries == 2
    with pytest.raises(ModelAttemptError) as failed:
        await ask(client)
    assert made.calls == (1, 1)
    assert failed.value.attempts == 2
    assert failed.value.candidate == "b"
    assert str(failed.value) == (
        "model call llm.generate failed: route llm.generate at b: server_error after 2 attempts"
    )


async def test_a_caller_gets_the_usage_only_if_it_asks_for_the_usage(made: Service) -> None:
    async def usages(**more: Any) -> list[BaseModel]:
        stream = await made.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True, **more)
        return [chunk.usage async for chunk in stream if chunk.usage]

    assert await usages() == []
    assert len(await usages(stream_options={"include_usage": True})) == 1


# --- the forms


async def test_a_chat_without_streaming_is_answered_and_its_failures_are_classified(made: Service) -> None:
    late = fake.chat("late", delay=9)
    first(made, fake.chat("whole"), fake.chat("x", finish_reason=None), Answer((b"not JSON",)), late)
    made.b.script = lambda _: fake.chat("from B")
    texts = []
    for _ in range(4):
        answer = await made.sdk().chat.completions.create(model="any", messages=QUESTION)
        texts.append(answer.choices[0].message.content)
    assert texts == ["whole", "from B", "from B", "from B"]
    classes = [event.error_class for event in made.ledger.events if event.deployment == "a"]
    assert classes == [None, "truncated", "server_error", "first_token_timeout"]


async def test_mc13_lifecycle_frames_of_the_responses_api_are_not_content(made: Service) -> None:
    response = {"id": "r", "object": "response", "created_at": 0, "model": "m", "output": []}
    created = fake.event({"type": "response.created", "response": response}, "response.created")
    error = fake.event({"type": "error", "code": "server_error", "message": "x"}, "error")
    first(made, fake.streamed([created, error]))
    made.b.script = lambda _: fake.responses_stream("from ", "B")
    stream = await made.sdk().responses.create(model="any", input="q", stream=True)
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed",
    ]
    assert made.calls == (1, 1)
    failed, finished = made.ledger.events
    assert failed.error_class == "server_error"
    assert (finished.input_units, finished.output_tokens, finished.estimated) == (10, 5, False)


def test_mc13_lifecycle_frames_are_not_content_for_the_synchronous_sdk(made: Service) -> None:
    created = fake.event({"type": "response.created", "response": {"id": "r"}}, "response.created")
    first(made, fake.streamed([created, fake.event({"type": "error", "code": "server_error"}, "error")]))
    made.b.script = lambda _: fake.responses_stream("from ", "B")
    events = list(made.sync_sdk().responses.create(model="any", input="q", stream=True))
    assert [event.type for event in events] == [
        "response.created",
        *["response.output_text.delta"] * 2,
        "response.completed",
    ]
    assert made.calls == (1, 1)


async def test_failed_and_incomplete_responses_are_recognized(made: Service) -> None:
    failed = {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "x"}}
    limited = {"id": "r", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": []}
    first(
        made,
        fake.streamed([fake.event({"type": "response.failed", "response": failed})]),
        fake.streamed([fake.event({"type": "response.incomplete", "response": limited})]),
    )
    made.b.script = lambda _: fake.responses_stream("B")
    for _ in range(2):
        _ = [event async for event in await made.sdk().responses.create(model="any", input="q", stream=True)]
    assert [(event.deployment, event.error_class, event.finish_reason) for event in made.ledger.events] == [
        ("a", "server_error", None),
        ("b", None, "stop"),
        ("a", None, "length"),
    ]


async def test_embeddings_pass_through_the_route(made: Service) -> None:
    first(made, Answer((b'{"object": "list"}',), headers={"content-type": "application/json"}), fake.embeddings(2))
    made.b.script = lambda _: fake.embeddings(2)
    found = await made.sdk().embeddings.create(model="any", input=["a", "b"])
    assert len(found.data) == 2
    assert [event.error_class for event in made.ledger.events] == ["truncated", None]
    assert made.ledger.events[1].input_units == 10


async def test_reranking_passes_through_the_route(made: Service) -> None:
    body = json.dumps({"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 7}}).encode()
    first(made, Answer((body,), headers={"content-type": "application/json"}))
    found = await made.sdk().post("/rerank", body={"model": "any", "query": "q", "documents": ["a"]}, cast_to=object)
    assert found == json.loads(body)
    assert made.ledger.events[0].input_units == 7


async def test_speech_is_streamed_to_the_caller_and_a_cut_connection_is_a_failure(
    tmp_path: Path, clock: FakeClock
) -> None:
    price = ModelPrice(unit="character", input=15.0, as_of=PRICE.as_of, source="a test")
    made = service(tmp_path, clock, models={"models": {"m": model(price=price)}})
    spoken = fake.speech(3)
    first(made, spoken, Answer((*spoken.steps, cut), headers=spoken.headers), fake.error(503))
    made.b.script = lambda _: fake.speech(1)
    client = made.sdk().audio.speech
    assert len((await client.create(model="any", voice="alloy", input="hello")).content) == 3 * 640
    with pytest.raises(ModelStreamError):
        await client.create(model="any", voice="alloy", input="hello")
    assert len((await client.create(model="any", voice="alloy", input="hello")).content) == 640
    assert [(event.error_class, event.input_units, event.micro_usd) for event in made.ledger.events] == [
        (None, 5, 75),
        ("truncated", 5, 75),
        ("overloaded", 0, 0),
        (None, 5, 75),
    ]


async def test_transcriptions_get_the_candidates_model_and_are_billed_by_seconds(
    tmp_path: Path, clock: FakeClock
) -> None:
    price = ModelPrice(unit="audio_second", input=100.0, as_of=PRICE.as_of, source="a test")
    made = service(tmp_path, clock, models={"models": {"m": model(price=price)}})
    first(made, fake.transcription("heard", seconds=7))
    heard = await made.sdk().audio.transcriptions.create(model="any", file=("a.wav", b"RIFF" * 100))
    assert heard.text == "heard"
    sent = made.a.exchanges[0].request.body
    assert b'name="model"\r\n\r\nm\r\n' in sent
    assert b"any" not in sent
    assert (made.ledger.events[0].input_units, made.ledger.events[0].micro_usd) == (7, 700)


async def test_the_cost_is_estimated_if_usage_and_price_have_different_units(tmp_path: Path, clock: FakeClock) -> None:
    price = ModelPrice(unit="character", input=15.0, as_of=PRICE.as_of, source="a test")
    made = service(tmp_path, clock, models={"models": {"m": model(price=price)}})
    first(made, fake.embeddings(2))
    await made.sdk().embeddings.create(model="any", input=["he", "llo"])
    (event,) = made.ledger.events
    assert (event.input_units, event.input_unit, event.micro_usd) == (10, "token", 5 * 15)


# --- requests in flight, and slow readers


async def test_mc6_many_requests_in_flight_cause_one_event_for_an_exhausted_quota(made: Service) -> None:
    spent = replace(fake.error(429, "insufficient_quota"), delay=0.1)
    made.a.script = lambda _: spent
    await asyncio.gather(*(ask(made.sdk()) for _ in range(5)))
    assert made.calls == (5, 5)
    cooldowns = [event for event in made.events.of("transition") if event.policy == "cooldown"]
    assert [(event.target, event.reason) for event in cooldowns] == [("a", "quota_exhausted")]


async def test_the_time_of_a_slow_reader_does_not_count_as_idle(made: Service) -> None:
    made.a.script = lambda _: fake.chat_stream("a", "b", "c")
    received = ""
    stream = await made.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True)
    async for chunk in stream:
        received += chunk.choices[0].delta.content or ""
        await asyncio.sleep(0.4)
    assert received == "abc"
