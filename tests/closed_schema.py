"""Parts of closed schemas. A closed schema accepts only the fields that this project sets, so it finds misspellings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 1}
ZERO_OR_MORE: Schema = {"type": "integer", "minimum": 0}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
SPAN_OF_TIME: Schema = {"type": "string", "pattern": r"^-?\d+(ms|s|m|h|d)$"}
ADDRESS: Schema = {"type": "string", "pattern": r"^[a-z0-9.-]+:\d+$"}
URL: Schema = {"type": "string", "pattern": r"^http://[a-z0-9.-]+:\d+(/[a-z0-9/]+)?$"}
PATH: Schema = {"type": "string", "pattern": r"^(/[A-Za-z0-9._-]+)+$"}


def closed(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def one_of(*values: object) -> Schema:
    return {"enum": list(values)}


def faults(schema: Schema, document: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)]


def misspellings(document: Any) -> Iterator[tuple[str, Any]]:
    """The document once for each key, with that key misspelt."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key, {f"{name}x" if name == key else name: each for name, each in document.items()}
            for path, changed in misspellings(value):
                yield f"{key}/{path}", {**document, key: changed}
    elif isinstance(document, list):
        for index, value in enumerate(document):
            for path, changed in misspellings(value):
                yield f"{index}/{path}", [*document[:index], changed, *document[index + 1 :]]
