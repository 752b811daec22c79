from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from voice_models import ModelAttempted, ModelAttemptError, ModelRuntime, ModelTransport, UsageSink, telemetry
from voice_models import fake_answers as fake
from voice_models.fake_provider import Answer
from voice_models.metrics import METRICS
from voice_models.wire_form import Transcription
from voice_policies import Bulkhead, EnforcedBy, FaultInjection, Ratio
from voice_runtime import Runtime
from voice_runtime.testing import FakeClock

from tests.bundles import mount
from tests.models.routes import QUESTION, ROUTE, Service, ask, budget, routed, service


def budgeted(directory: Path, clock: FakeClock) -> Service:
    return service(directory, clock, models={"budgets": {"minute": budget(2_000)}}, route={"budgets": ("minute",)})


async def post(made: Service, body: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    transport = ModelTransport(made.runtime, ROUTE, made.network)
    request = {"model": "any", "messages": QUESTION, "stream": True, **body}
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.post("http://ignored/v1/chat/completions", json=request, headers=headers)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_negative_output_limit_reserves_no_negative_tokens(
    tmp_path: Path, clock: FakeClock, field: str
) -> None:
    made = budgeted(tmp_path, clock)
    held: list[int] = []

    def answer(_: object) -> Answer:
        held.append(made.held)
        return fake.chat_stream("no")

    made.a.script = answer
    await post(made, {field: -1_000_000})
    assert held[0] > 0


@pytest.mark.parametrize(
    "body",
    [{"n": "2"}, {"n": 1.5}, {"n": []}, {"stream_options": True}, {"stream_options": ["include_usage"]}],
    ids=str,
)
async def test_the_provider_judges_a_field_of_a_wrong_type(
    tmp_path: Path, clock: FakeClock, body: dict[str, Any]
) -> None:
    made = budgeted(tmp_path, clock)
    assert (await post(made, body)).status_code == 200
    (field,) = body
    assert made.a.exchanges[0].request.json()[field] == body[field]


@pytest.mark.parametrize("header", ["api-key", "x-api-key", "authorization"])
async def test_the_key_of_the_sdk_is_sent_to_no_provider(tmp_path: Path, clock: FakeClock, header: str) -> None:
    made = budgeted(tmp_path, clock)
    await post(made, {}, {header: "the key of another provider"})
    assert "the key of another provider" not in made.a.exchanges[0].request.headers.values()


class Broken(UsageSink):
    def on_attempt(self, event: ModelAttempted) -> None:
        raise RuntimeError(event.ending)


async def test_a_sink_that_raises_changes_no_answer_and_no_settlement(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = budgeted(tmp_path, clock)
    runtime = made.runtime = ModelRuntime(made.runtime.runtime, sinks=[Broken(), made.ledger])
    assert [await ask(made.sdk()) for _ in range(3)] == ["the-answer-of-A"] * 3
    await runtime.drain()
    assert made.is_settled()
    assert len(made.ledger.events) == 3
    assert caplog.text.count("a usage sink raised an error") == 1


async def test_an_answer_that_is_dropped_unread_returns_its_slot_and_its_tokens(tmp_path: Path) -> None:
    made = service(tmp_path, None, models={"budgets": {"minute": budget()}}, route={"budgets": ("minute",)})
    bulkhead = Bulkhead(max_concurrent=1)
    by = EnforcedBy(timeout="runtime", circuit_breaker="runtime", bulkhead="runtime")
    declared = made.runtime.runtime.bundle
    calls = tuple(
        call.model_copy(update={"bulkhead": bulkhead, "enforced_by": by}) if call.name == ROUTE else call
        for call in declared.outbound
    )
    mounted = mount(tmp_path / "narrow", declared.model_copy(update={"outbound": calls}).sealed())
    made.runtime = ModelRuntime(Runtime.load(mounted))
    made.a.script = lambda _: fake.chat_stream(*"abc")
    for _ in range(3):
        await made.sdk().chat.completions.create(model="any", messages=QUESTION, stream=True)
        async with asyncio.timeout(60):
            while not made.is_settled():
                gc.collect()
                await asyncio.sleep(0.01)
    slots = made.runtime.runtime.outbound(ROUTE).bulkhead
    assert slots is not None
    assert slots.in_flight == 0
    assert {exchange.ending for exchange in made.a.exchanges} <= {"closed_by_client", "complete"}


def test_a_deployment_of_two_routes_has_one_cooldown_metric(tmp_path: Path) -> None:
    bundle = routed(tmp_path / "keys")
    assert bundle.models is not None
    routes = {ROUTE: bundle.models.routes[ROUTE], "llm.plan": bundle.models.routes[ROUTE]}
    models = bundle.models.model_copy(update={"routes": routes})
    mounted = mount(tmp_path / "policy", bundle.model_copy(update={"models": models}).sealed())
    runtime = ModelRuntime(Runtime.load(mounted))
    candidate = runtime.candidates(models, ROUTE)[0]
    runtime.cooldowns.record(candidate, "rate_limited", 5.0, routes[ROUTE].cooldown)
    metric = next(metric for metric in METRICS if metric.name == "voice_model_cooldown")
    assert list(metric.read(runtime)) == [(("a", "rate_limited"), 1)]


async def test_an_injected_fault_uses_no_tokens_and_costs_nothing(tmp_path: Path, clock: FakeClock) -> None:
    faults = FaultInjection(enabled=True, error_ratio=Ratio("100%"))
    limits = {"budgets": {"minute": budget(2_000)}}
    made = service(tmp_path, clock, models=limits, route={"budgets": ("minute",)}, fault_injection=faults)
    with pytest.raises(ModelAttemptError, match="server_error"):
        await post(made, {})
    await made.runtime.drain()
    assert made.calls == (0, 0)
    assert [(event.input_units, event.micro_usd) for event in made.ledger.events] == [(0, 0)] * 2
    assert made.held == 0


@pytest.mark.parametrize(("stream", "streamed"), [(True, True), ("true", True), (1, False), ([], False), ({}, False)])
def test_a_transcription_is_streamed_only_if_the_request_asks_for_a_stream(stream: object, *, streamed: bool) -> None:
    assert Transcription().is_streamed({"stream": stream}) is streamed


class BrokenProcessor(SpanProcessor):
    def __init__(self, broken: str) -> None:
        setattr(self, broken, self.fail)

    def fail(self, *_: object, **__: object) -> None:
        raise RuntimeError("the processor failed")


@pytest.mark.parametrize("broken", ["on_start", "on_end"])
async def test_the_tokens_are_settled_if_a_span_processor_raises(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BrokenProcessor(broken))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    made = budgeted(tmp_path, clock)
    with pytest.raises(RuntimeError, match="the processor failed"):
        await post(made, {})
    assert made.is_settled()
    assert [event.ending for event in made.ledger.events] == (["finished"] if broken == "on_end" else [])
