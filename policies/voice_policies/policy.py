"""The base of every policy."""

from __future__ import annotations

from functools import cache
from types import NoneType
from typing import Any, get_args

from pydantic import SerializerFunctionWrapHandler, model_serializer

from voice_policies.closed_model import ClosedModel


class Policy(ClosedModel):
    """A part of a `PolicyBundle` that one layer enforces."""

    @model_serializer(mode="wrap")
    def _with_nulls(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `None` where it is not the default. A field that is left out is read as its default."""
        document: dict[str, Any] = dump(self)
        for name in _nullable(type(self)):
            if getattr(self, name) is None:
                document[name] = None
        return document


@cache
def _nullable(policy: type[Policy]) -> tuple[str, ...]:
    """The fields that accept `None` although it is not their default."""
    fields = policy.model_fields.items()
    return tuple(name for name, field in fields if field.default is not None and NoneType in get_args(field.annotation))
