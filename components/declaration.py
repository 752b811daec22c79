"""The base of everything that a catalogue declares (nodes, operations, calls). It records the line of source code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from inspect import currentframe
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pydantic
from pydantic import ModelWrapValidatorHandler, ValidationError, model_validator
from typing_extensions import override
from voice_policies import ClosedModel, Fault, conflict_fault, faults_of

__all__ = ["ROOT", "Declaration", "Location"]

ROOT = f"{Path(__file__).resolve().parents[1]}/"
_CONSTRUCTORS = (str(Path(__file__).parent), str(Path(pydantic.__file__).parent))
"""Folders of functions that build declarations. `_location` skips their frames."""


class Location(NamedTuple):
    """A line of source code."""

    file: str
    """Path in the repository, or an absolute path outside it."""
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Declaration(ClosedModel):
    """A model with its location.

    A faulty declaration does not raise. It stores its faults, and the call graph reports the faults of all declarations
    in one message. Location and faults are not fields, so comparison and serialisation ignore them.
    """

    if not TYPE_CHECKING:  # type checkers read the parameters from the fields

        def __init__(self, /, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                self._store_invalid(values)
                found = faults_of(error, type(self))
            else:
                found = []
            self.__dict__["_location"] = _location()
            if faults := tuple(self._all_faults(found)):
                self.__dict__["_faults"] = faults

    @property
    def location(self) -> Location | None:
        """The line of source code with this declaration."""
        location: Location | None = self.__dict__.get("_location")
        return location

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of this declaration and of its parts."""
        faults: tuple[Fault, ...] = self.__dict__.get("_faults", ())
        return faults

    def at(self, location: Location | None) -> Self:
        """A copy with another location. A derived declaration takes the location of its origin."""
        return self.model_copy(update={"_location": location})

    @property
    def label(self) -> str:
        """The text for this declaration in the path of a fault."""
        return ""

    def _store_invalid(self, values: dict[str, Any]) -> None:
        """Store values that are not valid. A missing required value becomes "?"; `model_construct` would omit it."""
        fields = type(self).model_fields.items()
        defaults = {name: "?" if field.is_required() else field.default for name, field in fields}
        state = {"__dict__": {**defaults, **values}, "__pydantic_fields_set__": set(values)}
        self.__setstate__({**state, "__pydantic_extra__": None, "__pydantic_private__": None})

    def _all_faults(self, found: list[Fault]) -> Iterator[Fault]:
        parts = [replace(fault, path=self.label + fault.path) for part in self._parts() for fault in part.faults]
        if not found and not parts:
            found = [conflict_fault(conflict) for conflict in self.conflicts()]
        for fault in found:
            field = f": {fault.path}" if fault.path else ""
            yield replace(fault, path=self.label + field, source=str(self.location))
        yield from parts

    def _parts(self) -> Iterator[Declaration]:
        for value in vars(self).values():
            if isinstance(value, tuple | list):
                yield from (item for item in value if isinstance(item, Declaration))

    @model_validator(mode="wrap")
    @classmethod
    @override
    def _refuse_conflicts(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Validate the fields only: `faults` includes conflicts, so the constructor must not raise for them."""
        return validate(value)


def _location() -> Location | None:
    """The line of the declaration.

    The search skips the frames of constructors. Then it goes from caller to caller, up to the last frame of the same
    file. That frame gives the line.
    """
    frame = currentframe()
    while frame and frame.f_code.co_filename.startswith(_CONSTRUCTORS):
        frame = frame.f_back
    while frame and frame.f_back and frame.f_back.f_code.co_filename == frame.f_code.co_filename:
        frame = frame.f_back
    return Location(frame.f_code.co_filename.removeprefix(ROOT), frame.f_lineno) if frame else None
