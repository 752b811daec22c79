"""The work of a reference service: the calls of an operation, in the order of its bundle.

It calls gRPC callees inside the platform over the network, and simulates stores and providers in this process, under
the same policies. The bundle does not say which calls run in parallel, so they run in order.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from voice_policies import OutboundCall
from voice_runtime import Runtime, remaining
from voice_runtime.grpc import Grpc
from voice_runtime.tracing import span

from voice_reference.configuration import ConfigurationFile
from voice_reference.simulation import work

Answer = dict[str, Any]


class Operations:
    """The operations of one service."""

    def __init__(self, runtime: Runtime, configuration: ConfigurationFile, wire: Grpc) -> None:
        self._runtime = runtime
        self._wire = wire
        self._configuration = configuration
        for call in runtime.bundle.outbound:
            if call.necessity == "soft":
                runtime.fallback(call.name, _fallback(call))

    async def run(self, operation: str) -> Answer:
        """Make every call of an operation, then its own work. Call it inside a request.

        The answer lists the fallbacks that were used, here and behind the callees.
        """
        left = remaining()
        if left is not None:
            trace.get_current_span().set_attribute("voice.deadline_seconds", round(left, 6))
        bundle = self._runtime.bundle
        declared = {call.name: call for call in bundle.outbound}
        inbound = next(each for each in bundle.inbound if each.operation == operation)
        fallbacks: list[str] = []
        for name in inbound.calls:
            fallbacks += await self._call(declared[name])
        await work(operation, self._configuration.current().of(operation), self._runtime.random)
        return {"service": bundle.metadata.service, "operation": operation, "fallbacks": fallbacks}

    async def _call(self, call: OutboundCall) -> list[str]:
        answer: Answer = await (self._on_the_wire(call) if is_on_the_wire(call) else self._simulated(call))
        found: list[str] = answer["fallbacks"]
        return found

    async def _on_the_wire(self, call: OutboundCall) -> Answer:
        configuration = self._configuration.current()
        async with self._wire.channel(call.name, target=configuration.addresses.get(call.callee)) as channel:
            method = channel.unary_unary(
                f"/voice.reference.v1.Reference/{call.operation}",
                request_serializer=_encoded,
                response_deserializer=json.loads,
            )
            # In a Go service gRPC itself enforces the timeout. Here the deadline of the RPC does.
            timeout = call.timeout.overall.seconds if call.enforced_by.timeout == "grpc" else None
            answer: Answer = await method({}, timeout=timeout)
            return answer

    async def _simulated(self, call: OutboundCall) -> Answer:
        # The simulation includes the driver's own timeout.
        limit = call.timeout.attempt.seconds if call.enforced_by.timeout == "driver" else None
        behaviour = self._configuration.current().of(call.name)

        async def answer() -> Answer:
            async with asyncio.timeout(limit):
                await work(call.name, behaviour, self._runtime.random)
            return {"fallbacks": []}

        async def stream() -> AsyncIterator[Answer]:
            yield await answer()

        with span(call.name, SpanKind.CLIENT, {"voice.call": call.name, "voice.simulated": True}):
            if call.first_message is None:
                return await self._runtime.call(call.name, answer)
            return [message async for message in self._runtime.stream(call.name, stream)][-1]


def is_on_the_wire(call: OutboundCall) -> bool:
    """True if the callee is another reference service: inside the platform, over gRPC."""
    return call.protocol == "grpc" and all(address.via is None for address in call.addresses)


def _encoded(document: Answer) -> bytes:
    return json.dumps(document).encode()


def _fallback(call: OutboundCall) -> Any:
    return lambda _: {"fallbacks": [call.fallback]}
