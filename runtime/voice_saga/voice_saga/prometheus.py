"""Prometheus: the metrics of an engine. Needs the extra `prometheus`.

REGISTRY.register(SagaCollector(engine.observation))
"""

from __future__ import annotations

from voice_runtime.prometheus import MetricsCollector

from voice_saga.metrics import DEAD_LETTER_METRICS, METRICS, OUTBOX_METRICS
from voice_saga.observation import Observation
from voice_saga.transport import DeadLetters, Outbox

__all__ = ["DeadLetterCollector", "OutboxCollector", "SagaCollector"]


class SagaCollector(MetricsCollector[Observation]):
    """The metrics of one engine: a `JournalEngine` or a `TemporalEngine`."""

    def __init__(self, observation: Observation) -> None:
        super().__init__(observation, METRICS)


class OutboxCollector(MetricsCollector[Outbox]):
    """The metrics of one outbox."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox, OUTBOX_METRICS)


class DeadLetterCollector(MetricsCollector[DeadLetters]):
    """The metrics of a transport's consumers: `DeadLetterCollector(transport.dead_letters)`."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        super().__init__(dead_letters, DEAD_LETTER_METRICS)
