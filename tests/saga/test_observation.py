from __future__ import annotations

from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from voice_saga import JournalEngine, Message, Reply, SqliteJournal, StepContext
from voice_saga.metrics import METRICS
from voice_saga.otel import Spans, observe
from voice_saga.prometheus import SagaCollector

from tests.saga.backends import Backend
from tests.saga.definitions import Log, eventually, saga, step


async def later(_: StepContext) -> Any:
    return Reply.LATER


async def test_metrics_count_sagas_steps_and_compensations(tmp_path: Path) -> None:
    log = Log()
    log.does("pay", later)
    log.fails("ship", lambda: ValueError("no"))
    log.fails("undo-ship", lambda: ValueError("no"))
    policy = saga(step("pay"), step("ship"))
    async with JournalEngine(SqliteJournal(tmp_path / "sagas.db"), [log.definition(policy)], lease=0.3) as engine:
        registry = CollectorRegistry()
        registry.register(SagaCollector(engine.observation))
        first, _ = [await engine.start("order") for _ in range(2)]
        await engine.deliver(first, "pay")
        await engine.wait(first, 30)

        async def counted() -> bool:
            states = {"parked": 1.0, "waiting": 1.0}
            return all(sample("unfinished", state=state) == number for state, number in states.items())

        def sample(metric: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"voice_saga_{metric}", {"saga": "order", **labels})

        await eventually(counted)
        step_labels = {"step": "ship", "branch": "compensation"}
        assert sample("step_executions_total", **step_labels, kind="failed") == 1
        assert sample("step_executions_total", step="pay", branch="action", kind="successful") == 2
        assert (sample("step_seconds_total", **step_labels) or 0) > 0
        assert sample("transitions_total", kind="parked") == 1
        reader = InMemoryMetricReader()
        observe(engine.observation, MeterProvider([reader]).get_meter("voice_runtime"))
        data = reader.get_metrics_data()
        assert data is not None
        (scope,) = data.resource_metrics[0].scope_metrics
        assert {metric.name for metric in scope.metrics} == {metric.name.removesuffix("_total") for metric in METRICS}


async def test_all_executions_of_a_saga_are_in_one_trace_across_engines(backend: Backend) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    log = Log()
    log.does("pay", later)
    log.fails("ship", lambda: ValueError("no"))
    definition = log.definition(saga(step("pay"), step("ship")))
    async with backend([definition], tracing=Spans(tracer)) as engine:
        with tracer.start_as_current_span("upload") as upload:
            saga_id = await engine.start("order")
        await eventually(lambda: _waits(engine, saga_id))
    async with backend([definition], tracing=Spans(tracer)) as engine:
        with Spans(tracer).message(Message("1", "order.paid", None), "shop"):
            await engine.deliver(saga_id, "pay")
        await engine.wait(saga_id, 60)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    steps = ["order.pay action", "order.ship action", "order.ship compensation", "order.pay compensation"]
    for name in steps:
        span = spans[name]
        assert span.parent is not None
        assert span.parent.span_id == upload.get_span_context().span_id
        assert (span.attributes or {})["saga.id"] == saga_id
    event = spans["order.paid process"].get_span_context()
    assert event is not None
    assert [link.context.span_id for link in spans["order.ship action"].links] == [event.span_id]
    assert not spans["order.pay action"].links
    assert not spans["order.ship action"].status.is_ok


async def _waits(engine: Any, saga_id: str) -> bool:
    return bool((await engine.show(saga_id)).state == "waiting")
