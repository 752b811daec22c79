"""Prometheus: the metrics of an engine. Needs the extra `prometheus`.

REGISTRY.register(SagaCollector(engine.observation))
"""

from __future__ import annotations

from voice_runtime.prometheus import MetricsCollector
from voice_runtime.saga.metrics import METRICS
from voice_runtime.saga.observation import Observation


class SagaCollector(MetricsCollector[Observation]):
    """The metrics of one engine, on whichever store."""

    def __init__(self, observation: Observation) -> None:
        super().__init__(observation, METRICS)
