"""Prometheus: a collector that reads the counters when it is scraped. Needs the extra `prometheus`.

REGISTRY.register(RuntimeCollector(runtime))
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from voice_runtime.metrics import METRICS
from voice_runtime.runtime import Runtime


class RuntimeCollector(Collector):
    """The metrics of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Every metric, as it stands now."""
        for metric in METRICS:
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.help, labels=metric.labels
            )
            for values, number in metric.read(self._runtime):
                family.add_metric(values, number)
            yield family
