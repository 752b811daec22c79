"""The names that a bundle's parts know each other by."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=63)]
OperationName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=63)]
CallName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)?(:[a-z][a-z0-9-]*)?$", max_length=128)]
"""`callee`, `callee.operation`, or `callee.operation:purpose` where one operation is called for two purposes."""
EventType = Annotated[str, Field(pattern=r"^[a-z]+\.[a-z]+$", max_length=63)]
"""What happened, such as `document.uploaded`; also the name of the stream that carries it."""
