"""The base of every policy."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from voice_policies.closed_model import ClosedModel


class Policy(ClosedModel):
    """A part of a `PolicyBundle` that one layer enforces."""

    @model_serializer(mode="wrap")
    def _with_nulls(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `None` where it is not the default, because a field that is left out is read as its default."""
        document: dict[str, Any] = dump(self)
        for name, field in type(self).model_fields.items():
            if field.default is not None and getattr(self, name) is None:
                document[name] = None
        return document
