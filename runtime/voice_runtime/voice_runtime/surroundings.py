"""The resources of a process that all its policies share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from voice_policies import CircuitBreaker as CircuitBreakerPolicy

from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import Clock
from voice_runtime.events import Events
from voice_runtime.outcome import Classify, ClassifyResult
from voice_runtime.shared_store import SharedStore
from voice_runtime.worker_threads import WorkerThreads


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The clock, randomness, listeners, classifiers, threads and shared store of one process."""

    clock: Clock
    random: Random
    events: Events
    classify: Classify
    classify_result: ClassifyResult | None
    workers: WorkerThreads
    store: SharedStore | None
    allow_fault_injection: bool

    def breaker(self, name: str, policy: CircuitBreakerPolicy) -> CircuitBreaker:
        """A new breaker with the clock, randomness and listeners of this process."""
        return CircuitBreaker(name, policy, clock=self.clock, random=self.random, events=self.events)
