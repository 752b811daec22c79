"""Prometheus: a collector that reads the counters when it is scraped. Needs the extra `prometheus`.

REGISTRY.register(RuntimeCollector(runtime))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from voice_runtime.metrics import METRICS, Metric, Source
from voice_runtime.runtime import Runtime

__all__ = ["MetricsCollector", "RuntimeCollector"]


class MetricsCollector(Collector, Generic[Source]):
    """The metrics that are read from one object, for example from a runtime."""

    def __init__(self, source: Source, metrics: Sequence[Metric[Source]]) -> None:
        self._source = source
        self._metrics = metrics

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Every metric with its current samples."""
        for metric in self._metrics:
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.help, labels=metric.labels
            )
            for values, number in metric.read(self._source):
                family.add_metric(values, number)
            yield family


class RuntimeCollector(MetricsCollector[Runtime]):
    """The metrics of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, METRICS)
