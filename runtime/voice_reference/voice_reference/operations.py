"""The work of a reference service. The service makes the calls of an operation in the order of the bundle.

The service calls gRPC callees inside the platform over the network, and models through OpenAI's SDK. The service
simulates stores and other providers in this process, under the policies of their calls. The bundle does not say which
calls run in parallel. So the calls run one after the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from voice_policies import OutboundCall
from voice_runtime import Runtime, SoftCallError, remaining
from voice_runtime.grpc import Grpc
from voice_runtime.tracing import span

from voice_reference.configuration import ConfigurationFile
from voice_reference.models import ModelCalls
from voice_reference.simulation import work

Message = dict[str, Any]
"""A message of an operation. `{"content": …}` is a part of the text. The last message has the `fallbacks`."""


class Operations:
    """The operations of one service."""

    def __init__(self, runtime: Runtime, configuration: ConfigurationFile, wire: Grpc, models: ModelCalls) -> None:
        self._runtime = runtime
        self._wire = wire
        self._models = models
        self._configuration = configuration
        for call in runtime.bundle.outbound:
            if call.necessity == "soft":
                runtime.fallback(call.name, _fallback(call))

    def is_streamed(self, operation: str) -> bool:
        """True if the bundle says that the operation answers with a stream."""
        return any(each.streamed for each in self._runtime.bundle.inbound if each.operation == operation)

    async def run(self, operation: str) -> Message:
        """The last message of `messages`, with the text of all messages as `content`."""
        text, last = "", {}
        async with aclosing(self.messages(operation)) as messages:
            async for last in messages:
                text += last.get("content", "")
        return {**last, "content": text} if text else last

    async def messages(self, operation: str) -> AsyncGenerator[Message, None]:
        """Make every call of an operation, then simulate the service's own work. Use it inside a request.

        A streamed operation passes on the text of its callees as it arrives. The last message lists the fallbacks that
        this service and its callees used.
        """
        left = remaining()
        if left is not None:
            trace.get_current_span().set_attribute("voice.deadline_seconds", round(left, 6))
        bundle = self._runtime.bundle
        declared = {call.name: call for call in bundle.outbound}
        inbound = next(each for each in bundle.inbound if each.operation == operation)
        fallbacks: list[str] = []
        for name in inbound.calls:
            async with aclosing(self._call(declared[name])) as messages:
                async for message in messages:
                    fallbacks += message.get("fallbacks", ())
                    if inbound.streamed and "content" in message:
                        yield {"content": message["content"]}
        await work(operation, self._configuration.current().of(operation), self._runtime.random)
        yield {"service": bundle.metadata.service, "operation": operation, "fallbacks": fallbacks}

    def _call(self, call: OutboundCall) -> AsyncGenerator[Message, None]:
        if call.route is not None:
            return self._of_a_model(call)
        if is_on_the_wire(call):
            return self._streamed(call) if call.streamed else self._unary(call)
        return self._simulated(call)

    async def _of_a_model(self, call: OutboundCall) -> AsyncGenerator[Message, None]:
        async with aclosing(self._models.texts(call)) as texts:
            async for text in texts:
                yield {"content": text}

    async def _unary(self, call: OutboundCall) -> AsyncGenerator[Message, None]:
        configuration = self._configuration.current()
        async with self._wire.channel(call.name, target=configuration.addresses.get(call.callee)) as channel:
            yield await channel.unary_unary(_path(call), _encoded, json.loads)({}, timeout=_timeout(call))

    async def _streamed(self, call: OutboundCall) -> AsyncGenerator[Message, None]:
        """The messages of a streamed callee. If a soft call fails before its first message, its fallback answers."""
        configuration, begun = self._configuration.current(), False
        async with self._wire.channel(call.name, target=configuration.addresses.get(call.callee)) as channel:
            rpc = channel.unary_stream(_path(call), _encoded, json.loads)({}, timeout=_timeout(call))
            try:
                async for message in rpc:
                    begun = True
                    yield message
            except SoftCallError:
                if begun:
                    raise
                yield {"fallbacks": [call.fallback]}
            finally:
                rpc.cancel()

    async def _simulated(self, call: OutboundCall) -> AsyncGenerator[Message, None]:
        # A real driver has a timeout of its own, so the simulation has one, too.
        limit = call.timeout.attempt.seconds if call.enforced_by.timeout == "driver" else None
        behaviour = self._configuration.current().of(call.name)

        async def answer() -> Message:
            async with asyncio.timeout(limit):
                await work(call.name, behaviour, self._runtime.random)
            return {"fallbacks": []}

        async def stream() -> AsyncIterator[Message]:
            yield await answer()

        with span(call.name, SpanKind.CLIENT, {"voice.call": call.name, "voice.simulated": True}):
            if call.first_message is None:
                yield await self._runtime.call(call.name, answer)
            else:
                yield [message async for message in self._runtime.stream(call.name, stream)][-1]


def is_on_the_wire(call: OutboundCall) -> bool:
    """True if the callee is another reference service: inside the platform, over gRPC."""
    return call.protocol == "grpc" and not any(address.uses_tls for address in call.addresses)


def _path(call: OutboundCall) -> str:
    return f"/voice.reference.v1.Reference/{call.operation}"


def _timeout(call: OutboundCall) -> float | None:
    """The deadline of the RPC, if gRPC enforces the call's timeout, as in the Go service that this process replaces."""
    return call.timeout.overall.seconds if call.enforced_by.timeout == "grpc" else None


def _encoded(document: Message) -> bytes:
    return json.dumps(document).encode()


def _fallback(call: OutboundCall) -> Any:
    return lambda _: {"fallbacks": [call.fallback]}
