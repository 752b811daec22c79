"""Prometheus: a collector that reads the counts of model calls when it is scraped. Needs the extra `prometheus`.

REGISTRY.register(ModelCollector(runtime))
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from voice_runtime.prometheus import MetricsCollector

from voice_models.metrics import HISTOGRAMS, METRICS
from voice_models.runtime import ModelRuntime

__all__ = ["ModelCollector"]


class ModelCollector(Collector):
    """The metrics of one model runtime. `RuntimeCollector` has the metrics of the `voice_runtime.Runtime` inside."""

    def __init__(self, runtime: ModelRuntime) -> None:
        self._runtime = runtime
        self._plain = MetricsCollector(runtime, METRICS)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """Every metric with its current samples."""
        yield from self._plain.collect()
        for histogram in HISTOGRAMS:
            family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
            for labels, found in tuple(histogram.read(self._runtime).items()):
                bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
                buckets = list(zip(bounds, accumulate(found.counts), strict=True))
                family.add_metric(labels, buckets, found.sum)
            yield family
