"""Prometheus: the metrics of an engine. Needs the extra `prometheus`.

REGISTRY.register(SagaCollector(engine.observation))
"""

from __future__ import annotations

from voice_runtime.prometheus import MetricsCollector

from voice_saga.metrics import METRICS, OUTBOX_METRICS
from voice_saga.observation import Observation
from voice_saga.transport import Outbox

__all__ = ["OutboxCollector", "SagaCollector"]


class SagaCollector(MetricsCollector[Observation]):
    """The metrics of one engine, on whichever store."""

    def __init__(self, observation: Observation) -> None:
        super().__init__(observation, METRICS)


class OutboxCollector(MetricsCollector[Outbox]):
    """The metrics of one outbox."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox, OUTBOX_METRICS)
