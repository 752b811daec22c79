"""The forms of names and other short texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

TEXT_PATTERN = "text_pattern"
"""Type of pydantic's error for a text that does not match."""


@dataclass(frozen=True, slots=True)
class TextPattern:
    """The pattern of a text, as metadata of its type. A refusal names `example` instead of the regular expression."""

    pattern: str
    example: str
    max_length: int | None = None
    """Largest length in characters. `None`: no limit."""

    def __get_pydantic_core_schema__(self, source: type[str], handler: GetCoreSchemaHandler) -> CoreSchema:
        length = "" if self.max_length is None else f", at most {self.max_length} characters"
        return core_schema.custom_error_schema(
            core_schema.str_schema(pattern=self.pattern, max_length=self.max_length),
            TEXT_PATTERN,
            custom_error_message=f"expected text such as {self.example}{length}",
        )


DnsLabel = Annotated[str, TextPattern(r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", "rag-engine", 63)]
"""A label of a DNS name (RFC 1035), in lower case. It begins with a letter and has no two hyphens in sequence."""
OperationName = Annotated[str, TextPattern(r"^[a-z][a-z0-9-]*$", "search", 63)]
CallName = Annotated[
    str, TextPattern(r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)?(:[a-z][a-z0-9-]*)?$", "rag-engine.search", 128)
]
"""`callee`, `callee.operation`, or `callee.operation:purpose` for one of several calls of the same operation."""
RouteName = Annotated[str, TextPattern(r"^[a-z][a-z0-9-]*\.[a-z][a-z0-9-]*$", "llm.generate", 128)]
"""The name of a model route: the callee and the operation of the calls that use it."""
EventType = Annotated[str, TextPattern(r"^[a-z]+\.[a-z]+$", "document.uploaded", 63)]
"""The type of an event, and the name of the stream that carries it."""
