"""From a bundle to what enforces it, with the state that outlives each bundle.

What a policy counts is kept by the name of its call or operation. A policy that did not change keeps its state as it
is; one that changed goes on from its state under the new numbers; one that is gone is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Protocol, TypeVar

from voice_policies import CircuitBreaker as CircuitBreakerPolicy
from voice_policies import InboundOperation, OutboundCall, PolicyBundle

from voice_runtime.bulkhead import Bulkhead
from voice_runtime.call_policies import Fallback
from voice_runtime.circuit_breaker import CircuitBreaker
from voice_runtime.clock import NEVER, Clock
from voice_runtime.degradation import Degradation
from voice_runtime.errors import UnknownCallError
from voice_runtime.events import Events, logger
from voice_runtime.fault_injection import FaultInjection
from voice_runtime.inbound import Inbound
from voice_runtime.outbound import Outbound
from voice_runtime.outcome import Classify, ClassifyResult
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.rate_limit.shared_count import Connection
from voice_runtime.retry import Retry, RetryBudget
from voice_runtime.shared_store import SharedStore
from voice_runtime.statistics import CallStatistics, OperationStatistics
from voice_runtime.worker_threads import WorkerThreads


class Stateful(Protocol):
    """What goes on under another policy."""

    def reconfigure(self, policy: Any) -> None:
        """Keep the state, take the new numbers."""
        ...


P = TypeVar("P")
S = TypeVar("S", bound=Stateful)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process gives to all its policies."""

    clock: Clock
    random: Random
    events: Events
    classify: Classify
    classify_result: ClassifyResult | None
    workers: WorkerThreads
    store: SharedStore | None
    allow_fault_injection: bool


@dataclass(frozen=True, slots=True)
class Assembled:
    """One bundle, ready to be enforced. A call in flight keeps the one it began under."""

    bundle: PolicyBundle
    outbound: dict[str, Outbound]
    inbound: dict[str, Inbound]
    degradation: Degradation | None
    calls: dict[str, Outbound]
    """Every outbound call by its name, and by its callee where that has no other."""

    def call(self, name: str) -> Outbound:
        """The pipeline of an outbound call. Raises `UnknownCallError`."""
        try:
            return self.calls[name]
        except KeyError:
            raise UnknownCallError("outbound call", name, self.outbound) from None


class Assembly:
    """The state behind the bundles of one process."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._states: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._fresh: dict[tuple[str, str], tuple[Any, Any]] = {}

    def assemble(self, bundle: PolicyBundle, fallbacks: dict[str, Fallback]) -> Assembled:
        """Bind a bundle to its state."""
        self._fresh = {}
        faults = self._fault_injection(bundle)
        outbound = {call.name: self._outbound(call, fallbacks.get(call.name), faults) for call in bundle.outbound}
        degradation = self._degradation(bundle)
        service = bundle.metadata.service
        inbound = {
            operation.operation: self._inbound(operation, tuple(self._gates(service, operation, outbound)), degradation)
            for operation in bundle.inbound
        }
        self._states = self._fresh
        return Assembled(bundle, outbound, inbound, degradation, _by_name_and_callee(bundle, outbound))

    def breaker(self, name: str, policy: CircuitBreakerPolicy) -> CircuitBreaker:
        """A new breaker."""
        around = self._surroundings
        return CircuitBreaker(name, policy, clock=around.clock, random=around.random, events=around.events)

    def _outbound(self, call: OutboundCall, fallback: Fallback | None, faults: FaultInjection | None) -> Outbound:
        around, name, by = self._surroundings, call.name, call.enforced_by
        timed = by.timeout == "runtime"
        retry = None
        if call.retry and by.retry == "runtime":
            budget = self._kept("budget", name, call.retry.budget, lambda policy: RetryBudget(policy, around.clock))
            retry = Retry(name, call.retry, budget=budget, clock=around.clock, random=around.random)
        return Outbound(
            name,
            attempt_timeout=call.timeout.attempt.seconds if timed else NEVER,
            overall_timeout=call.timeout.overall.seconds if timed else NEVER,
            retry=retry,
            breaker=self._kept(
                "circuit_breaker",
                name,
                call.circuit_breaker if by.circuit_breaker == "runtime" else None,
                lambda policy: self.breaker(name, policy),
            ),
            bulkhead=self._kept(
                "bulkhead",
                name,
                call.bulkhead if by.bulkhead == "runtime" else None,
                lambda policy: Bulkhead(name, policy),
            ),
            fallback=fallback,
            fault_injection=faults,
            classify=around.classify,
            classify_result=around.classify_result,
            clock=around.clock,
            events=around.events,
            statistics=self._counted("outbound", name, CallStatistics),
            workers=around.workers,
        )

    def _inbound(
        self, operation: InboundOperation, gates: tuple[Gate | DistributedGate, ...], degradation: Degradation | None
    ) -> Inbound:
        around, name = self._surroundings, operation.operation
        return Inbound(
            name,
            deadline=operation.deadline.seconds,
            objective=operation.service_level.latency.seconds,
            gates=gates,
            bulkhead=self._kept("inbound bulkhead", name, operation.bulkhead, lambda policy: Bulkhead(name, policy)),
            degradation=degradation,
            classify=around.classify,
            clock=around.clock,
            events=around.events,
            statistics=self._counted("inbound", name, OperationStatistics),
        )

    def _gates(
        self, service: str, operation: InboundOperation, outbound: dict[str, Outbound]
    ) -> Iterator[Gate | DistributedGate]:
        around, name = self._surroundings, operation.operation
        for number, limit in enumerate(operation.rate_limits):
            if limit.store is None:
                yield self._state(
                    f"rate_limit {number}", name, limit, lambda policy: Gate(name, policy, around.clock, around.random)
                )
                continue
            gate = self._state(
                f"distributed rate_limit {number}",
                name,
                limit,
                partial(
                    DistributedGate,
                    name,
                    f"{service}:rate-limit:{name}:{number}",
                    clock=around.clock,
                    random=around.random,
                ),
            )
            if around.store is None:
                logger.warning("%s: a distributed limit has no store, and is %s", name, limit.when_store_unavailable)
            gate.connection = Connection(around.store, outbound[limit.store].unrepeated()) if around.store else None
            yield gate

    def _fault_injection(self, bundle: PolicyBundle) -> FaultInjection | None:
        policy, around = bundle.fault_injection, self._surroundings
        if policy is None or not around.allow_fault_injection:
            return None
        logger.warning("faults are injected into the calls of %s", bundle.metadata.service)
        return FaultInjection(policy, around.clock)

    def _degradation(self, bundle: PolicyBundle) -> Degradation | None:
        around, service = self._surroundings, bundle.metadata.service
        return self._kept(
            "degradation",
            service,
            bundle.degradation,
            lambda policy: Degradation(service, policy, clock=around.clock, events=around.events),
        )

    def _kept(self, kind: str, name: str, policy: P | None, make: Callable[[P], S]) -> S | None:
        """As `_state`; `None` where there is no policy."""
        return None if policy is None else self._state(kind, name, policy, make)

    def _state(self, kind: str, name: str, policy: P, make: Callable[[P], S]) -> S:
        """The state of one policy: as it was, reconfigured, or new."""
        before, state = self._states.get((kind, name), (policy, None))
        if state is None:
            state = make(policy)
        elif before != policy:
            state.reconfigure(policy)
        self._fresh[kind, name] = (policy, state)
        kept: S = state
        return kept

    def _counted(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        _, statistics = self._fresh[kind, name] = self._states.get((kind, name)) or (None, make())
        return statistics


def _by_name_and_callee(bundle: PolicyBundle, outbound: dict[str, Outbound]) -> dict[str, Outbound]:
    callees = [call.callee for call in bundle.outbound]
    return {call.callee: outbound[call.name] for call in bundle.outbound if callees.count(call.callee) == 1} | outbound
