import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from components.observability import collector_config
from components.observability.collector import Collector
from components.observability.fluent_bit import FluentBit
from tests.cluster import otlp
from tests.cluster.misspelling import keys_of, misspelt
from tests.cluster.processes import Processes
from tests.fluent_bit import ECS_LINE, GO_LINE, json_line, shipped
from tests.loopback import free_port
from tests.platforms import ENVIRONMENTS, platform

pytestmark = pytest.mark.cluster

PASSWORD = "a password, with spaces"  # noqa: S105 - the password of a test's own server
SECONDS = 60.0
"""Longest wait in seconds on a slow machine."""


def declared(environment: str) -> Collector:
    (found,) = (each for each in platform(environment).components if isinstance(each, Collector))
    return found


@dataclass(frozen=True)
class Place:
    folder: Path
    http_port: int
    backends: dict[str, int]
    health: int
    metrics: int

    @property
    def config(self) -> Path:
        return self.folder / "collector.json"


def moved(environment: str, folder: Path) -> Place:
    """Write the rendered configuration with other addresses, paths, retry intervals and timeouts."""
    component = declared(environment)
    (text,) = component.files.values()
    names = [backend.name for backend in component.backends]
    backends = {name: free_port() for name in names}
    place = Place(folder, free_port(), backends, free_port(), free_port())
    (folder / "queues").mkdir(parents=True)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "password").write_text(PASSWORD)
    for backend in component.backends:
        path = re.sub(r"^https?://[^/]+|^[^/]+$", "", backend.endpoint)
        scheme = "http://" if backend.protocol == "http" else ""
        text = text.replace(f'"{backend.endpoint}"', f'"{scheme}127.0.0.1:{backends[backend.name]}{path}"')
        if backend.secret:
            text = text.replace(f"{backend.secret.path}/", f"{folder}/secrets/")
    for port, other in (
        (collector_config.GRPC_PORT, free_port()),
        (collector_config.HTTP_PORT, place.http_port),
        (collector_config.HEALTH_PORT, place.health),
    ):
        text = text.replace(f"{collector_config.POD_ADDRESS}:{port}", f"127.0.0.1:{other}")
    text = text.replace(collector_config.POD_ADDRESS, "127.0.0.1")
    text = text.replace(f'"port": {collector_config.METRICS_PORT}', f'"port": {place.metrics}')
    text = text.replace(f'"{collector_config.QUEUE_PATH}"', f'"{folder}/queues"')
    text = text.replace('"max_interval": "30s"', '"max_interval": "1s"')
    text = text.replace('"timeout": "10s"', '"timeout": "60s"')  # a busy machine answers late
    place.config.write_text(text)
    return place


def validate(collector: Path, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [collector, "validate", f"--config={config}"], capture_output=True, text=True, check=False, timeout=SECONDS
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_collector_accepts_the_configuration(environment: str, collector: Path, tmp_path: Path) -> None:
    checked = validate(collector, moved(environment, tmp_path / "place").config)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_each_key_is_refused_when_it_is_misspelt(collector: Path, tmp_path: Path) -> None:
    place = moved("dev", tmp_path / "place")
    document = json.loads(place.config.read_text())
    accepted = []
    for path in keys_of(document):
        place.config.write_text(json.dumps(misspelt(document, path)))
        if validate(collector, place.config).returncode == 0:
            accepted.append(path)
    assert accepted == []


def own_metrics(place: Place) -> dict[str, float]:
    with urlopen(f"http://127.0.0.1:{place.metrics}/metrics", timeout=5) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@contextmanager
def running(program: Path, place: Place, name: str = "collector") -> Iterator[None]:
    logs = place.folder / name
    logs.mkdir(exist_ok=True)
    with Processes(logs) as processes:
        processes.start(program, f"--config={place.config}")
        processes.wait_until(lambda: healthy(place.health), "the Collector", SECONDS)
        yield


def healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except (URLError, OSError):
        return False


def backends_place(environment: str, place: Place, sink: otlp.Sink, folder: Path) -> Place:
    """Write the configuration of a second Collector that replaces every backend and sends the data to `sink`.

    The second Collector acknowledges data only when the sink has the data. So the first Collector keeps all
    unacknowledged data.
    """
    folder.mkdir()
    receivers: dict[str, Any] = {}
    exporters: dict[str, Any] = {}
    pipelines: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    for backend in declared(environment).backends:
        at: dict[str, Any] = {"endpoint": f"127.0.0.1:{place.backends[backend.name]}"}
        if backend.protocol == "http":
            prefix = re.sub(r"^https?://[^/]+", "", backend.endpoint)
            at[f"{backend.signal}_url_path"] = f"{prefix}/v1/{backend.signal}"
        if backend.user:
            server = f"basicauth/{backend.name}"
            extensions[server] = {"htpasswd": {"inline": f"{backend.user}:{PASSWORD}\n"}}
            at["auth"] = {"authenticator": server}
        receivers[f"otlp/{backend.name}"] = {"protocols": {backend.protocol: at}}
        exporters[f"otlp_http/{backend.name}"] = {
            "endpoint": f"http://127.0.0.1:{sink.port}/{backend.name}",
            "encoding": "json",
            "compression": "none",
            "sending_queue": {"enabled": False},
            "retry_on_failure": {"enabled": False},
        }
        pipelines[f"{backend.signal}/{backend.name}"] = {
            "receivers": [f"otlp/{backend.name}"],
            "exporters": [f"otlp_http/{backend.name}"],
        }
    health = free_port()
    extensions["health_check"] = {"endpoint": f"127.0.0.1:{health}"}
    document = {
        "extensions": extensions,
        "receivers": receivers,
        "exporters": exporters,
        "service": {
            "extensions": list(extensions),
            "pipelines": pipelines,
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    found = Place(folder, 0, {}, health, 0)
    found.config.write_text(json.dumps(document))
    return found


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Place:
    return moved("prod", tmp_path / "place")


def test_accepted_data_survives_a_restart_of_the_backends_and_of_the_collector(
    collector: Path, place: Place, tmp_path: Path
) -> None:
    sent: dict[str, set[str]] = {signal: set() for signal in otlp.SIGNALS}

    def offer(label: str) -> None:
        for number in range(20):
            name = f"{label}-{number}"
            assert otlp.send(place.http_port, "traces", otlp.trace("agent-engine", name))
            assert otlp.send(place.http_port, "metrics", otlp.metric("agent-engine", name, 1))
            assert otlp.send(place.http_port, "logs", otlp.log("agent-engine", name))
            for signal in otlp.SIGNALS:
                sent[signal].add(name)

    def arrived(sink: otlp.Sink) -> bool:
        return all(
            {
                "traces": {span["name"] for span in sink.spans(backend.name)},
                "metrics": {metric["name"] for metric in sink.metrics(backend.name)},
                "logs": {record["body"]["stringValue"] for record in sink.logs(backend.name)},
            }[backend.signal]
            >= sent[backend.signal]
            for backend in declared("prod").backends
        )

    with otlp.Sink() as sink:
        backends = backends_place("prod", place, sink, tmp_path / "backends")
        with running(collector, place):
            with running(collector, backends):
                offer("there")
                otlp.eventually(lambda: arrived(sink), SECONDS)
            offer("away")
        assert not arrived(sink)
        with running(collector, place):
            offer("restarted")
            assert not arrived(sink)
            with running(collector, backends):
                otlp.eventually(lambda: arrived(sink), SECONDS)


def test_a_full_queue_refuses_data_and_drops_no_accepted_data(collector: Path, place: Place, tmp_path: Path) -> None:
    document = json.loads(place.config.read_text())
    for exporter in document["exporters"].values():
        exporter["sending_queue"] |= {
            "queue_size": 4_000,
            "batch": {"flush_timeout": "1s", "min_size": 0, "max_size": 2_000},
        }
    place.config.write_text(json.dumps(document))
    taken: set[str] = set()
    with otlp.Sink() as sink:
        backends = backends_place("prod", place, sink, tmp_path / "backends")
        with running(collector, place):
            refused = 0
            for number in range(200):
                if otlp.send(place.http_port, "logs", otlp.log("agent-engine", f"line {number}")):
                    taken.add(f"line {number}")
                else:
                    refused += 1
            assert refused
            assert taken
            # After one of these statuses a sender such as Fluent Bit retries. After any other status it drops the data.
            endpoint = f"http://127.0.0.1:{place.http_port}"
            assert otlp.status(endpoint, "logs", otlp.log("agent-engine", "one more")) in {429, 502, 503, 504}
            # The alerts use these series: the refused records, and the size and capacity of a queue in bytes.
            exported = own_metrics(place)
            exporter = 'exporter="otlp_http/elasticsearch"'
            assert exported[f"otelcol_exporter_enqueue_failed_log_records{{{exporter}}}"] > 0
            assert exported[f'otelcol_exporter_queue_capacity{{data_type="logs",{exporter}}}'] == 4_000
            assert 2_000 < exported[f'otelcol_exporter_queue_size{{data_type="logs",{exporter}}}'] <= 4_000
            with running(collector, backends):
                otlp.eventually(
                    lambda: {record["body"]["stringValue"] for record in sink.logs("elasticsearch")} >= taken,
                    SECONDS,
                )


def test_the_collector_keeps_the_traces_of_services_and_samples_whole_traces_of_other_senders(
    collector: Path, place: Place, tmp_path: Path
) -> None:
    traces = [otlp.trace_id() for _ in range(300)]
    with otlp.Sink() as sink:
        backends = backends_place("prod", place, sink, tmp_path / "backends")
        with running(collector, place), running(collector, backends):
            for identity in traces:
                for service, name in (("agent-engine", "own"), (otlp.STRANGER, "first"), (otlp.STRANGER, "second")):
                    assert otlp.send(place.http_port, "traces", otlp.trace(service, name, identity))
            otlp.eventually(lambda: kept(sink, "own") == set(traces), SECONDS)
            assert otlp.send(place.http_port, "traces", otlp.trace("agent-engine", "last"))
            otlp.eventually(lambda: bool(kept(sink, "last")), SECONDS)
        assert kept(sink, "first") == kept(sink, "second")
        ratio = declared("prod").sampling.others
        # The Collector keeps each of 300 traces with probability 10 %. The probability that it keeps
        # fewer than 8 or more than 60 is below one in a million.
        assert ratio == 0.1
        assert 8 <= len(kept(sink, "first")) <= 60
        assert collector_config.DECIDED not in {
            key for span in sink.spans("jaeger") for key in otlp.attributes_of(span)
        }


def kept(sink: otlp.Sink, name: str) -> set[str]:
    return {span["traceId"] for span in sink.spans("jaeger") if span["name"] == name}


SECRETS: otlp.Attributes = {
    "http.request.header.authorization": "Bearer abcdefghijklmnop",
    "db.password": "correct horse",
    "session_token": "0123456789",
    "api-key": "k",
    "note": "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl here",
    "llm": "sk-abcdefghijklmnopqrstuvwx",
    "url.full": "https://someone:hunter2@host.example/",
    "card": "4111 1111 1111 1111",
    "mail": "person@example.com",
    "recipients": ["a", "person@example.com"],
    "payer": {"card": 4111111111111111, "tries": 1},
}
HARMLESS = {"gen_ai.usage.input_tokens": "128", "http.route": "/v1/tokens/verify", "tenant.id": "t-1", "user.id": "u-1"}
NUMBERS: otlp.Attributes = {"messaging.batch.message_count": 12, "enqueued.microseconds": 1767225600000000}
"""Numbers that the Collector does not mask. The second has as many digits as a card number."""


def test_only_secrets_are_masked_in_spans_and_log_lines(collector: Path, place: Place, tmp_path: Path) -> None:
    line = f"called with {SECRETS['note']} by {SECRETS['mail']}"
    with otlp.Sink() as sink:
        backends = backends_place("prod", place, sink, tmp_path / "backends")
        with running(collector, place), running(collector, backends):
            attributes = SECRETS | HARMLESS | NUMBERS
            sent = otlp.trace("agent-engine", "for person@example.com", status=line, event=line, **attributes)
            assert otlp.send(place.http_port, "traces", sent)
            assert otlp.send(place.http_port, "logs", otlp.log("agent-engine", line, {**SECRETS, **HARMLESS}))
            otlp.eventually(lambda: bool(sink.spans("tempo") and sink.logs("elasticsearch")), SECONDS)
        (span,), (record,) = sink.spans("tempo"), sink.logs("elasticsearch")
    for item in (span, record):
        found = otlp.attributes_of(item)
        assert {key: found[key] for key in HARMLESS} == HARMLESS
        assert {key for key, value in SECRETS.items() if found.get(key) == str(value)} == set()
        assert not any(secret in json.dumps(item) for secret in ("hunter2", "person@", "4111", "eyJ"))
    assert span["name"] == "for ****"
    assert {span["status"]["message"], span["events"][0]["name"]} == {"called with jwt **** here by ****"}
    assert {each["key"]: each["value"] for each in span["attributes"] if each["key"] in NUMBERS} == {
        key: otlp.any_value(value) for key, value in NUMBERS.items()
    }
    assert record["body"]["stringValue"].startswith("called with jwt ")
    assert not any(secret in record["body"]["stringValue"] for secret in ("eyJ", "person@"))


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_printed_line_arrives_once_with_masked_secrets_and_unique_keys(
    collector: Path, place: Place, tmp_path: Path
) -> None:
    printed = json_line(
        f"called by {SECRETS['mail']} with {SECRETS['note']}",
        attempts=3,
        user={"password": "hunter2", "name": "someone"},
        trace_id=TRACE,
        span_id=SPAN,
        nothing=None,
        elasticsearch={"index": "elsewhere"},
    )
    lines = [printed, ECS_LINE, GO_LINE, "no JSON, hunter@example.com", json.dumps({"time": 1, "event": "started"})]
    (shipper,) = (each for each in platform("prod").components if isinstance(each, FluentBit))
    pipeline = json.loads(shipper.files["fluent-bit.yaml"])["pipeline"]
    keeping_time = [each for each in pipeline["filters"] if each["name"] != "modify"]
    doubled = shipped({**pipeline, "filters": keeping_time}, printed)
    assert [each["key"] for each in doubled["attributes"]].count("time") == 2
    with otlp.Sink() as sink:
        backends = backends_place("prod", place, sink, tmp_path / "backends")
        with running(collector, place), running(collector, backends):
            sent = [*(shipped(pipeline, line) for line in lines), doubled]
            assert otlp.send(place.http_port, "logs", otlp.records(*sent))
            otlp.eventually(lambda: bool(sink.logs("elasticsearch")), SECONDS)
        arrived = sink.logs("elasticsearch")
    assert [record["body"]["stringValue"] for record in arrived] == [
        "called by **** with jwt **** here",
        "served",
        "served",
        "no JSON, ****",
        "",
        "called by **** with jwt **** here",
    ]
    for record in arrived:
        keys = [each["key"] for each in record["attributes"]]
        assert sorted(keys) == sorted(set(keys))
        assert not {"@timestamp", "time", "level", "log.level", "elasticsearch.index"} & set(keys)
        assert otlp.attributes_of(record)["kubernetes.container_name"] == "agent-engine"
        # Elasticsearch refuses an empty value, and a value whose type differs from the type of the field.
        assert {kind for each in record["attributes"] for kind in each["value"]} == {"stringValue"}
    first, elastic, go, *_ = arrived
    assert (first["traceId"], first["spanId"], first["severityText"]) == (TRACE, SPAN, "info")
    assert (elastic["severityText"], go["severityText"]) == ("INFO", "INFO")
    found = otlp.attributes_of(first)
    assert (found["service"], found["attempts"], found["user.name"]) == ("agent-engine", "3", "someone")
    assert "hunter2" not in json.dumps(arrived)
