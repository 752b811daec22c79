"""The base class of all declared models: policies, components, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from pydantic_core import PydanticCustomError

CONFLICT = "conflict"
"""Error type of values that are valid one by one but contradict each other. The error's context lists the conflicts."""


class Conflict(NamedTuple):
    """A sentence about values that contradict each other, and the field that the error names."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


class ClosedModel(BaseModel):
    """Frozen and closed: an unknown key, a wrong type or a missing unit is refused, never guessed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        defer_build=True,
    )

    def conflicts(self) -> Iterator[str | Conflict]:
        """Values that contradict each other, one sentence each. Subclasses override this method."""
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_conflicts(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        model = validate(value)
        # If the value already is a model, its constructor checked it, and no model can change.
        if model is not value and cls.conflicts is not ClosedModel.conflicts and (found := list(model.conflicts())):
            raise PydanticCustomError(CONFLICT, "{text}", {"text": "; ".join(map(str, found)), "conflicts": found})
        return model
