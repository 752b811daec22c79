"""Which call of the bundle an RPC is, and which operation.

The last segment of the path, in kebab case, is the operation: `/voice.rag.v1.RagEngine/Context` is `context`,
`/voice.rag.v1.RagEngine/ListSources` is `list-sources`. What the bundle does not declare is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache

from voice_runtime.assembly import Assembled
from voice_runtime.errors import UnknownCallError
from voice_runtime.outbound import Outbound

INFRASTRUCTURE = "/grpc."
"""Health and reflection: about the process, so no policy of an operation applies."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


@lru_cache(maxsize=1024)
def operation_of(path: str) -> str:
    """The operation that an RPC's path names."""
    return _WORDS.sub("-", path.rpartition("/")[2]).lower()


def outbound_of(assembled: Assembled, name: str, path: str) -> Outbound:
    """The call that an RPC on the channel `name` is. Raises `UnknownCallError`.

    A channel named after a callee finds the call by its operation; one named after a call is that call, whatever the
    RPC is called. The second is for operations that are called for several purposes, and for callees of others.
    """
    if name in assembled.outbound:
        return assembled.outbound[name]
    operation = operation_of(path)
    calls = [call for call in assembled.bundle.outbound if call.callee == name]
    found = [call.name for call in calls if call.operation == operation]
    if len(found) != 1:
        raise UnknownCallError("outbound call", f"{name}.{operation}", [call.name for call in calls])
    return assembled.outbound[found[0]]
