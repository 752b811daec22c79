"""The faults of an input: one error lists all faults, each with its place, the value and the accepted values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from voice_policies.closed_model import CONFLICT, Conflict
from voice_policies.names import TEXT_PATTERN

SHOWN = 80
"""Longest excerpt of a wrong value that a message repeats, in characters."""
LISTED = 50
"""Maximum number of faults that a message lists. The message counts the others."""
EXPECTED = {
    "bool_type": "expected true or false",
    "dict_type": "expected a mapping",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "list_instead_of_tuple": "expected a tuple: write (a, b) in place of [a, b]",
    "list_type": "expected a list",
    "model_attributes_type": "expected a mapping",
    "model_type": "expected a mapping",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} characters",
    "string_type": "expected text: put it in quotes",
    "too_long": "expected at most {max_length}",
    "too_short": "expected at least {min_length}",
    "tuple_type": "expected a list",
}
"""Type of an error → the accepted value, in the words of a configuration file. Values from the error replace the
braces."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its `path` in the input (empty for the input itself), the value there, and the accepted values."""

    path: str
    value: str
    accepted: str
    source: str = ""
    """The file, with the line if it is known. Empty if `InvalidInputError.source` names the file."""

    def __str__(self) -> str:
        where = (part for part in (self.source, self.path) if part)
        return ": ".join([*where, f"{self.value}; {self.accepted}"])


class InvalidInputError(ValueError):
    """An input with at least one fault. `source` names the file or object; `faults` holds every fault found."""

    def __init__(self, source: str, faults: Iterable[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__(source, self.faults)

    def __str__(self) -> str:
        many = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = [f"{self.source}: {many}", *(f"  {fault}" for fault in self.faults[:LISTED])]
        if len(self.faults) > LISTED:
            lines.append(f"  and {len(self.faults) - LISTED} more")
        return "\n".join(lines)

    @classmethod
    def joined(cls, errors: Iterable[InvalidInputError]) -> InvalidInputError:
        """One error with every fault of `errors`, without duplicates.

        With several sources, each fault names its source.
        """
        found = dict.fromkeys((error.source, fault) for error in errors for fault in error.faults)
        sources = list(dict.fromkeys(source for source, _ in found))
        if len(sources) == 1:
            return cls(sources[0], [fault for _, fault in found])
        others = f"{len(sources) - 1} other places" if sources[2:] else sources[1]
        faults = [replace(fault, source=fault.source or source) for source, fault in found]
        return cls(f"{sources[0]} and {others}", faults)


def faults_of(error: ValidationError, model: type[BaseModel] | None = None, prefix: str = "") -> list[Fault]:
    """Every fault that pydantic found. Paths start with `prefix`; `model` supplies the known keys."""
    return [fault for found in errors_of(error) for fault in _faults(found, path_text(prefix, found["loc"]), model)]


def errors_of(error: ValidationError) -> list[ErrorDetails]:
    """Pydantic's errors, except an error that is only the consequence of another error."""
    errors = error.errors(include_url=False)
    return [found for found in errors if not _is_implied(found, errors)]


def _is_implied(found: ErrorDetails, errors: Iterable[ErrorDetails]) -> bool:
    """True for a "too short" error of a tuple that has enough items. Pydantic does not count items that are wrong."""
    if found["type"] != "too_short" or len(found["input"]) < found["ctx"]["min_length"]:
        return False
    depth = len(found["loc"])
    return any(other["loc"][:depth] == found["loc"] and len(other["loc"]) > depth for other in errors)


def conflict_fault(conflict: str | Conflict, path: str = "") -> Fault:
    """The fault of a conflict in the model at `path`."""
    if isinstance(conflict, Conflict):
        return Fault(path_text(path, [conflict.field]), "is refused", conflict.text)
    return Fault(path, "is refused", conflict)


def path_text(prefix: str, location: Sequence[int | str]) -> str:
    """A location as people write it: `outbound[3].retry.max_retries`."""
    text = prefix
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(kind: str, value: Any) -> str:
    if kind == "missing":
        return "is missing"
    if isinstance(value, dict | list | tuple) or hasattr(type(value), "model_fields"):
        return "is refused"
    if value is None or isinstance(value, bool):
        return f"is {json.dumps(value)}"
    if callable(value):
        return f"is of type {type(value).__name__}"  # its text would be an address in memory
    text = repr(value if isinstance(value, str | int | float) else str(value))
    return f"is {text if len(text) <= SHOWN else text[:SHOWN] + '…'}"


def _faults(found: ErrorDetails, path: str, model: type[BaseModel] | None) -> Iterator[Fault]:
    if found["type"] == CONFLICT:
        yield from (conflict_fault(conflict, path) for conflict in found["ctx"]["conflicts"])
    elif found["type"] == "extra_forbidden" and model is not None:
        yield Fault(path, _shown(found["type"], found["input"]), _known_keys(model, found["loc"]))
    else:
        kind = found["type"]
        if kind == TEXT_PATTERN and not isinstance(found["input"], str):
            kind = "string_type"
        elif kind == "tuple_type" and isinstance(found["input"], list):  # from Python: a file may contain a list
            kind = "list_instead_of_tuple"
        accepted = EXPECTED.get(kind, "").format(**found.get("ctx", {}))
        yield Fault(path, _shown(found["type"], found["input"]), accepted or _hint(found) + _sentence(found["msg"]))


def _hint(found: ErrorDetails) -> str:
    """A suggestion of the nearest accepted word. Empty if no word is near."""
    if found["type"] != "literal_error" or not isinstance(found["input"], str):
        return ""
    return _nearest(found["input"], re.findall(r"'([^']*)'", found["ctx"]["expected"]))


def _sentence(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return text[:1].lower() + text[1:]


def _known_keys(model: type[BaseModel], location: Sequence[int | str]) -> str:
    models = _models_at(model, location[:-1])
    known = {field.alias or name for found in models for name, field in found.model_fields.items()}
    return f"not a known key: {one_of(str(location[-1]), known)}"


def one_of(name: str, known: Iterable[str]) -> str:
    """The accepted names for an unknown name: the nearest name first, then all names."""
    names = sorted(known)
    return f"{_nearest(name, names)}expected one of {', '.join(names)}"


def _nearest(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""


def _models_at(model: type[BaseModel], location: Sequence[int | str]) -> list[type[BaseModel]]:
    """The models that may validate the value at `location`. Only an untagged union has several."""
    models = [model]
    for part in location:
        fields = [found.model_fields[str(part)] for found in models if part in found.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models_in(field.annotation)]
        else:
            tagged = [m for m in models if any(field.default == part for field in m.model_fields.values())]
            models = tagged or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
