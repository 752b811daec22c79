from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from prometheus_client import CollectorRegistry
from voice_models import fake_answers as fake
from voice_models.metrics import HISTOGRAMS, METRICS
from voice_models.prometheus import ModelCollector
from voice_models.usage_stream import STREAM
from voice_policies import Duration, ModelPrice, PricedUnit, PromptPrivacy, StreamLatency
from voice_runtime.redis import RedisStore, single
from voice_runtime.testing import FakeClock

from tests.models.routes import ANSWER, MARKER, Service, ask, budget, model, service
from tests.redis_servers import Server


def value(made: Service, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(ModelCollector(made.runtime))
    return registry.get_sample_value(name, labels)


async def test_the_metrics_describe_a_call_with_a_fallback(tmp_path: Path, clock: FakeClock) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: fake.error(429, headers={"retry-after": "9"})
    made.b.script = lambda _: fake.chat_stream(ANSWER, "B", first=0.1, gap=0.02, tokens=(1000, 500))
    await ask(made.sdk())
    of_b = {"route": "llm.generate", "candidate": "b"}
    assert value(made, "voice_model_calls_total", route="llm.generate", kind="successful") == 1
    assert value(made, "voice_model_fallbacks_total", route="llm.generate") == 1
    assert value(made, "voice_model_attempts_total", route="llm.generate", candidate="a", kind="rate_limited") == 1
    assert value(made, "voice_model_attempts_total", **of_b, kind="successful") == 1
    assert value(made, "voice_model_tokens_total", **of_b, direction="output", source="reported") == 500
    assert value(made, "voice_model_cost_micro_usd_total", **of_b) == 1000 * 0.15 + 500 * 0.6
    assert value(made, "voice_model_cooldown", candidate="a", reason="rate_limited") == 1
    clock.advance(9)
    assert value(made, "voice_model_cooldown", candidate="a", reason="rate_limited") is None
    of_operation = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "b",
        "gen_ai_request_model": "m",
        "error_type": "",
    }
    first = "gen_ai_client_operation_time_to_first_chunk_seconds"
    assert value(made, f"{first}_count", **of_operation) == 1
    assert value(made, f"{first}_sum", **of_operation) == pytest.approx(0.12)
    assert value(made, f"{first}_bucket", **of_operation, le="0.08") == 0
    assert value(made, f"{first}_bucket", **of_operation, le="0.16") == 1


@pytest.mark.parametrize(
    ("first", "gap", "good"),
    [(0.1, 0.0, 1), (0.4, 0.0, None), (0.1, 0.5, None)],
    ids=["both objectives met", "first token too late", "later tokens too slow"],
)
async def test_goodput_counts_calls_that_meet_every_objective(
    tmp_path: Path, clock: FakeClock, first: float, gap: float, good: int | None
) -> None:
    objective = StreamLatency(first_token=Duration("300ms"), per_token=Duration("100ms"))
    made = service(tmp_path, clock, route={"objective": objective})
    made.a.script = lambda _: fake.streamed(
        [fake.delta("x"), fake.delta("y"), fake.finish(), fake.usage(1, 3)], first=first, gap=gap
    )
    await ask(made.sdk())
    assert value(made, "voice_model_good_calls_total", route="llm.generate") == good


async def test_the_histograms_have_the_objectives_of_the_routes_as_bounds(tmp_path: Path, clock: FakeClock) -> None:
    objective = StreamLatency(first_token=Duration("300ms"), per_token=Duration("4.3ms"))
    made = service(tmp_path, clock, route={"objective": objective})
    await ask(made.sdk())
    of_operation = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "a",
        "gen_ai_request_model": "m",
        "error_type": "",
    }
    for name in ("time_to_first_chunk", "time_per_output_chunk"):
        for bound in ("0.0043", "0.01", "0.3"):
            found = value(made, f"gen_ai_client_operation_{name}_seconds_bucket", **of_operation, le=bound)
            assert found is not None, (name, bound)


async def test_budgets_and_retirements_are_exported(tmp_path: Path, clock: FakeClock) -> None:
    models = {"budgets": {"minute": budget(120)}, "models": {"m": model(retires=date(2027, 1, 1))}}
    made = service(tmp_path, clock, models=models, route={"budgets": ("minute",)})
    await ask(made.sdk())
    assert value(made, "voice_model_budget_requests_total", budget="minute", kind="admitted") == 1
    assert value(made, "voice_model_budget_without_store_total", budget="minute") == 1
    assert value(made, "voice_model_retirement_timestamp_seconds", candidate="a") == 1_798_761_600


async def test_a_span_follows_the_conventions_and_contains_no_prompt_or_answer(
    tmp_path: Path, clock: FakeClock, spans: InMemorySpanExporter
) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: fake.error(503)
    await ask(made.sdk())
    failed, finished = spans.get_finished_spans()
    assert failed.attributes is not None
    assert finished.attributes is not None
    assert failed.name == "chat m"
    assert failed.attributes["error.type"] == "overloaded"
    assert finished.attributes["gen_ai.usage.output_tokens"] == 5
    assert finished.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert finished.attributes["voice.model.attempt"] == 2
    assert "gen_ai.input.messages" not in finished.attributes


async def test_a_policy_can_capture_prompts_and_answers_in_spans(
    tmp_path: Path, clock: FakeClock, spans: InMemorySpanExporter
) -> None:
    made = service(tmp_path, clock, route={"privacy": PromptPrivacy(capture=True)})
    await ask(made.sdk())
    (span,) = spans.get_finished_spans()
    spans.clear()  # otherwise the fixture would find the captured content and fail the test
    assert span.attributes is not None
    assert MARKER in str(span.attributes["gen_ai.input.messages"])
    assert span.attributes["gen_ai.output.messages"] == f"{ANSWER}A"


@pytest.mark.parametrize("unit", ["token", "character"])
async def test_only_input_that_is_billed_by_tokens_is_exported_as_tokens(
    tmp_path: Path, clock: FakeClock, spans: InMemorySpanExporter, unit: PricedUnit
) -> None:
    price = ModelPrice(unit=unit, input=15.0, as_of=date(2026, 11, 30), source="a test")
    made = service(tmp_path, clock, models={"models": {"m": model(price=price)}})
    made.a.script = lambda _: fake.speech(1)
    await made.sdk().audio.speech.create(model="any", voice="alloy", input="hello")
    _assert_exported_tokens(made, spans, made.ledger.events[0].input_units if unit == "token" else None, "estimated")


async def test_seconds_of_audio_are_not_exported_as_tokens(
    tmp_path: Path, clock: FakeClock, spans: InMemorySpanExporter
) -> None:
    made = service(tmp_path, clock)
    made.a.script = lambda _: fake.transcription("heard", seconds=7)
    await made.sdk().audio.transcriptions.create(model="any", file=("a.wav", b"RIFF" * 100))
    _assert_exported_tokens(made, spans, None, "reported")


def _assert_exported_tokens(made: Service, spans: InMemorySpanExporter, tokens: int | None, source: str) -> None:
    (span,) = spans.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes.get("gen_ai.usage.input_tokens") == tokens
    of_input = {"route": "llm.generate", "candidate": "a", "direction": "input", "source": source}
    assert value(made, "voice_model_tokens_total", **of_input) == tokens


def test_metrics_and_attributes_have_the_names_of_the_opentelemetry_conventions() -> None:
    attributes = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    used = {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "gen_ai.request.max_tokens",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.response.finish_reasons",
    }
    assert used <= attributes
    metrics = {value for name, value in vars(gen_ai_metrics).items() if name.startswith("GEN_AI_")}
    assert {each.name.removesuffix("_seconds") for each in HISTOGRAMS} <= {name.replace(".", "_") for name in metrics}


def test_no_metric_name_occurs_twice() -> None:
    names = [*(each.name for each in METRICS), *(each.name for each in HISTOGRAMS)]
    assert len(names) == len(set(names))


async def test_usage_events_are_appended_to_the_stream_as_messages(tmp_path: Path, server: Server) -> None:
    store = RedisStore(lambda: single(server.url, socket_connect_timeout=60))
    made = service(tmp_path, None, stores={"events.reserve": store}, models={"usage": "events.reserve"})
    await ask(made.sdk())
    await made.runtime.drain()
    ((_, fields),) = server.ask("XRANGE", STREAM, "-", "+")
    assert fields[::2] == ["id", "payload", "trace"]
    assert '"deployment": "a"' in fields[3]


async def test_a_usage_event_that_the_store_does_not_accept_is_counted(tmp_path: Path, clock: FakeClock) -> None:
    class Unreachable:
        async def run(self, *_: object) -> None:
            raise ConnectionError

    made = service(tmp_path, clock, stores={"events.reserve": Unreachable()}, models={"usage": "events.reserve"})
    await ask(made.sdk())
    await made.runtime.drain()
    assert value(made, "voice_model_usage_events_dropped_total") == 1
