from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.cluster import otlp
from tests.cluster.processes import Processes
from tests.cluster.test_collector import SECONDS, moved, running
from tests.cluster.test_log_lines import BYTES, MARK, SHOWN

pytestmark = pytest.mark.cluster

POINTS = {
    "plain": ({"label": "value"}, {"label": "value"}),
    "no_utf8": ({"label": MARK}, {"label": SHOWN}),
    "no_utf8_in_name": ({MARK: "value"}, {"unnamed": "value"}),
    "nameless": ({"": "value"}, {"unnamed": "value"}),
    "underscore": ({"_": "value"}, {"unnamed": "value"}),
    "cyrillic": ({"метка": "value"}, {"unnamed": "value"}),
    "нагрузка": ({"label": "value"}, {"label": "value"}),
    "last": ({"label": "value"}, {"label": "value"}),
}
"""Metric → the labels of its point, and the labels that Prometheus stores."""
NAMES = {"нагрузка": "unnamed"}
"""Metrics that Prometheus stores by another name."""


def test_malformed_points_are_stored_in_a_valid_form_and_do_not_affect_other_points(
    collector: Path, prometheus: Path, tmp_path: Path
) -> None:
    place = moved("prod", tmp_path / "place")
    (tmp_path / "prometheus.yml").write_text("{}")
    port = place.backends["prometheus-0"]
    expected = {NAMES.get(name, name): labels for name, (_, labels) in POINTS.items()}
    arguments = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data")
    with Processes(tmp_path) as processes, running(collector, place):
        processes.start(prometheus, *arguments, f"--web.listen-address=127.0.0.1:{port}", "--web.enable-otlp-receiver")
        sent = Request(
            f"http://127.0.0.1:{place.http_port}/v1/metrics",
            data=request(),
            headers={"Content-Type": "application/x-protobuf"},
        )
        with urlopen(sent, timeout=30):  # noqa: S310 - loopback
            pass
        otlp.eventually(lambda: stored(port) == expected, SECONDS)


def request() -> bytes:
    metrics = [
        metric
        for name, (labels, _) in POINTS.items()
        for resource in otlp.metric("model-router", name, 1, labels)["resourceMetrics"]
        for metric in resource["scopeMetrics"][0]["metrics"]
    ]
    document = otlp.metric("model-router", "plain", 1)
    document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"] = metrics
    text = json_format.Parse(json.dumps(document), ExportMetricsServiceRequest()).SerializeToString()
    return bytes(text.replace(MARK.encode(), BYTES))


def stored(port: int) -> dict[str, dict[str, str]]:
    """Name of each stored series → its labels without the sender's labels. Empty while Prometheus starts."""
    query = quote('{job="voiceassistant/model-router"}')
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={query}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    own = {"__name__", "job", "instance", "service_name", "service_namespace"}
    return {
        each["metric"]["__name__"]: {key: value for key, value in each["metric"].items() if key not in own}
        for each in found
    }
