import logging
import traceback
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from voice_models import ModelError, telemetry
from voice_models.prometheus import ModelCollector

from tests import redis_servers
from tests.driver import clock, pytest_pyfunc_call
from tests.models.routes import ANSWER, KEY, MADE, MARKER, Asynchronous, Driver, Service, Synchronous
from tests.redis_servers import Server

__all__ = ["clock", "pytest_pyfunc_call"]


@pytest.fixture(params=[Asynchronous, Synchronous], ids=["asynchronous", "synchronous"])
def driver(request: pytest.FixtureRequest) -> Driver:
    made: Driver = request.param()
    return made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_servers.single(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    running.ask("CONFIG", "RESETSTAT")
    return running


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[InMemorySpanExporter]:
    """The recorded spans. After each test: no log, span, metric, event or error contains a prompt, answer or key.

    This is the second part of case MC25.
    """
    provider, recorded = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(recorded))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    errors: list[ModelError] = []
    begin = ModelError.__init__

    def record(self: ModelError, *arguments: object, **facts: object) -> None:
        begin(self, *arguments, **facts)  # type: ignore[arg-type]  # the unchanged arguments
        errors.append(self)

    monkeypatch.setattr(ModelError, "__init__", record)
    MADE.clear()
    caplog.set_level(logging.INFO)
    for logger in ("voice_models", "voice_runtime"):
        caplog.set_level(logging.DEBUG, logger)
    yield recorded
    shown = [
        *(record.getMessage() + str(record.__dict__) for record in caplog.get_records("call")),
        *(str(span.to_json()) for span in recorded.get_finished_spans()),
        *("".join(traceback.format_exception(error)) + repr(vars(error)) for error in errors),
        *(published_by(service) for service in MADE),
    ]
    found = {marker: text for text in shown for marker in (MARKER, KEY, ANSWER) if marker in text}
    assert found == {}


def published_by(service: Service) -> str:
    registry = CollectorRegistry()
    registry.register(ModelCollector(service.runtime))
    return f"{generate_latest(registry).decode()} {service.ledger.events} {service.events.events}"
