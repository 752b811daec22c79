"""Builds the objects that enforce a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from voice_policies import InboundOperation, PolicyBundle

from voice_runtime.bulkhead import Bulkhead
from voice_runtime.call_policies import Fallback
from voice_runtime.degradation import Degradation
from voice_runtime.errors import UnknownCallError
from voice_runtime.events import logger
from voice_runtime.fault_injection import FaultInjection
from voice_runtime.inbound import Inbound
from voice_runtime.outbound import Outbound
from voice_runtime.policy_states import PolicyStates
from voice_runtime.rate_limit.distributed import DistributedGate
from voice_runtime.rate_limit.gate import Gate
from voice_runtime.rate_limit.shared_count import Connection
from voice_runtime.statistics import OperationStatistics
from voice_runtime.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Assembled:
    """A bundle with the objects that enforce it. After a reload, calls in flight keep the old bundle."""

    bundle: PolicyBundle
    outbound: dict[str, Outbound]
    inbound: dict[str, Inbound]
    degradation: Degradation | None
    calls: dict[str, Outbound]
    """Every outbound call by its name. If a callee has only one call, the callee's name also finds that call."""

    def call(self, name: str) -> Outbound:
        """The pipeline of an outbound call. Raises `UnknownCallError`."""
        try:
            return self.calls[name]
        except KeyError:
            raise UnknownCallError("outbound call", name, self.outbound) from None


class Assembly:
    """Builds the objects for each new bundle, with the policy states of this process."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._states = PolicyStates()

    def assemble(self, bundle: PolicyBundle, fallbacks: dict[str, Fallback]) -> Assembled:
        """Build the objects that enforce `bundle`. A policy that the previous bundle also had keeps its state."""
        self._states.begin()
        faults = self._fault_injection(bundle)
        outbound = {
            call.name: Outbound.of(
                call, self._states, self._surroundings, fallback=fallbacks.get(call.name), fault_injection=faults
            )
            for call in bundle.outbound
        }
        degradation = self._degradation(bundle)
        service = bundle.metadata.service
        inbound = {
            operation.operation: self._inbound(operation, tuple(self._gates(service, operation, outbound)), degradation)
            for operation in bundle.inbound
        }
        self._states.commit()
        return Assembled(bundle, outbound, inbound, degradation, _by_name_and_callee(bundle, outbound))

    def _inbound(
        self, operation: InboundOperation, gates: tuple[Gate | DistributedGate, ...], degradation: Degradation | None
    ) -> Inbound:
        around, name = self._surroundings, operation.operation
        return Inbound(
            name,
            deadline=operation.deadline.seconds,
            objective=operation.service_level.latency.seconds,
            gates=gates,
            bulkhead=self._states.kept("inbound bulkhead", name, operation.bulkhead, partial(Bulkhead, name)),
            degradation=degradation,
            classify=around.classify,
            clock=around.clock,
            events=around.events,
            statistics=self._states.counted("inbound", name, OperationStatistics),
        )

    def _gates(
        self, service: str, operation: InboundOperation, outbound: dict[str, Outbound]
    ) -> Iterator[Gate | DistributedGate]:
        around, name = self._surroundings, operation.operation
        for number, limit in enumerate(operation.rate_limits):
            if limit.store is None:
                yield self._states.state(
                    f"rate_limit {number}", name, limit, lambda policy: Gate(name, policy, around.clock, around.random)
                )
                continue
            gate = self._states.state(
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
                logger.warning(
                    "%s: the distributed limit has no store, so when_store_unavailable applies: %s",
                    name,
                    limit.when_store_unavailable,
                )
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
        return self._states.kept(
            "degradation",
            service,
            bundle.degradation,
            lambda policy: Degradation(service, policy, clock=around.clock, events=around.events),
        )


def _by_name_and_callee(bundle: PolicyBundle, outbound: dict[str, Outbound]) -> dict[str, Outbound]:
    callees = [call.callee for call in bundle.outbound]
    return {call.callee: outbound[call.name] for call in bundle.outbound if callees.count(call.callee) == 1} | outbound
