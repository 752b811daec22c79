"""OpenTelemetry: observable instruments that read the counters at each collection. Needs the extra `otel`.

observe(runtime, get_meter("voice_runtime"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from voice_runtime.metrics import METRICS, Metric, Source
from voice_runtime.runtime import Runtime

__all__ = ["observe", "register"]


def observe(runtime: Runtime, meter: Meter) -> None:
    """Register every metric of `runtime` with `meter`. In Prometheus the metrics have the names in `METRICS`."""
    register(runtime, METRICS, meter)


def register(source: Source, metrics: Sequence[Metric[Source]], meter: Meter) -> None:
    """Register the metrics of any source with `meter`."""
    for metric in metrics:
        # OpenTelemetry adds the suffix `_total` when it translates a counter for Prometheus.
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        create(metric.name.removesuffix("_total"), [_callback(source, metric)], description=metric.help)


def _callback(source: Source, metric: Metric[Source]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterator[Observation]:
        for values, number in metric.read(source):
            yield Observation(number, dict(zip(metric.labels, values, strict=True)))

    return read
