"""The forms of the names in a bundle."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

DnsLabel = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
"""Label of a DNS name (RFC 1123)."""
OperationName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=63)]
CallName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)?(:[a-z][a-z0-9-]*)?$", max_length=128)]
"""`callee`, `callee.operation`, or `callee.operation:purpose` where one operation is called for two purposes."""
EventType = Annotated[str, Field(pattern=r"^[a-z]+\.[a-z]+$", max_length=63)]
"""The type of an event, such as `document.uploaded`, and the name of the stream that carries it."""
