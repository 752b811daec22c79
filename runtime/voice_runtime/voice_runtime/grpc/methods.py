"""The mapping of RPCs to calls and operations of the bundle.

The last segment of the path, in kebab case, is the operation: `/voice.rag.v1.RagEngine/Context` is `context`,
`/voice.rag.v1.RagEngine/ListSources` is `list-sources`. A method that the bundle does not declare is refused.
The exceptions are health, reflection, and every method on a channel that has the name of a call.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, NamedTuple

from voice_runtime import trace_context
from voice_runtime.assembly import Assembled
from voice_runtime.errors import UnknownCallError
from voice_runtime.grpc.connections import Connection
from voice_runtime.grpc.requests import Serialize
from voice_runtime.outbound import Outbound


class Resolved(NamedTuple):
    """A method on one connection, with the outbound call that a bundle declares for the method."""

    path: str
    outbound: Outbound
    enter: Callable[..., Awaitable[Any]]
    """Runs the outbound call of an RPC that returns one message, not a stream."""
    is_internal: bool
    """True for a callee inside the platform. Callees outside get neither trace context nor baggage."""
    is_recorded: bool
    """True if spans are recorded. Set up tracing before the first call: this value is read again only when the bundle
    or the connection changes."""
    channel: Any
    serialize: Serialize
    """The stub's serializer. `invoke` takes the serialized bytes."""
    invoke: Callable[..., Any]
    attributes: dict[str, str]
    """Attributes of the span."""


INFRASTRUCTURE = "/grpc."
"""Path prefix of health and reflection. They concern the process, so no policy of a call or operation applies."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


@lru_cache(maxsize=1024)
def operation_of(path: str) -> str:
    """The operation in an RPC's path."""
    return _WORDS.sub("-", path.rpartition("/")[2]).lower()


def outbound_of(assembled: Assembled, name: str, path: str) -> Outbound:
    """The call for an RPC on the channel `name`. Raises `UnknownCallError`.

    If `name` is a callee, the operation in `path` selects the call. If `name` is a call, every RPC of the channel makes
    that call. Use the name of a call if the callee's methods are not named like the operations, or if several calls go
    to one operation.
    """
    if name in assembled.outbound:
        return assembled.outbound[name]
    operation = operation_of(path)
    calls = [call for call in assembled.bundle.outbound if call.callee == name]
    found = [call.name for call in calls if call.operation == operation]
    if len(found) != 1:
        raise UnknownCallError("outbound call", f"{name}.{operation}", [call.name for call in calls])
    return assembled.outbound[found[0]]


class Method:
    """One method of a stub. It resolves its call again when the bundle or the connection changes."""

    def __init__(
        self,
        channel: str,
        kind: str,
        path: str,
        serializers: tuple[Any, ...],
        settings: dict[str, Any],
    ) -> None:
        self.is_infrastructure = path.startswith(INFRASTRUCTURE)
        self._name = channel
        self._kind = kind
        self._path = path
        self._settings = settings | dict(
            zip(("request_serializer", "response_deserializer"), serializers, strict=False)
        )
        self._serialize: Serialize = _bytes_serializer
        if not self.is_infrastructure:
            self._serialize = self._settings.pop("request_serializer", None) or _bytes_serializer
        self._assembled: Assembled | None = None
        self._connection: Connection | None = None
        self._resolved: Resolved

    def resolved(self, assembled: Assembled, connection: Connection) -> Resolved:
        """The method for this bundle and this connection. Raises `UnknownCallError`."""
        if assembled is not self._assembled or connection is not self._connection:
            self._resolved = self._resolve(assembled, connection)
            self._assembled, self._connection = assembled, connection
        return self._resolved

    def _resolve(self, assembled: Assembled, connection: Connection) -> Resolved:
        outbound = outbound_of(assembled, self._name, self._path)
        addresses = next(call.addresses for call in assembled.bundle.outbound if call.name == outbound.name)
        service, _, method = self._path[1:].partition("/")
        return Resolved(
            path=self._path,
            outbound=outbound,
            enter=outbound.entry(),
            is_internal=not any(address.uses_tls for address in addresses),
            is_recorded=trace_context.is_recorded(),
            channel=connection.channel,
            serialize=self._serialize,
            invoke=self.invoke_on(connection),
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "voice.call": outbound.name,
            },
        )

    def invoke_on(self, connection: Connection) -> Any:
        """The method on a connection, without policies."""
        return getattr(connection.channel, self._kind)(self._path, **self._settings)


def _bytes_serializer(request: Any) -> bytes:
    """Serialize a request of a stub without a serializer. Such a request is bytes already."""
    serialized: bytes = request
    return serialized
