"""Plain values as YAML that every reader understands in the same way.

PyYAML writes `y`, `1e3` and `0o7` without quotes, but YAML 1.2 readers or the API server read them as other types.
PyYAML is also ten times slower. This small emitter leaves identifiers without quotes, except YAML's own words such as
`yes`. It quotes every other string, as JSON does. Text of several lines becomes a literal block, unless
a reader would read the block as other text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["documents"]

_IDENTIFIER = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_UNSAFE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
"""Characters that YAML readers refuse or read differently. All except `_REFUSED` are escaped. Printable text
contains none of them, so the emitter compiles the pattern only for text that is not printable."""
_REFUSED = "[\x7f-\x9f\ud800-\udfff\ufffe\uffff]"


def documents(values: Iterable[Mapping[str, Any]]) -> str:
    """The documents of one file, each after a `---` line."""
    lines: list[str] = []
    for value in values:
        lines.append("---")
        _mapping(value, "", lines)
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, Any], indent: str, lines: list[str]) -> None:
    for key, item in value.items():
        if isinstance(item, str):
            lines.append(f"{indent}{_scalar(key)}: {_text(item, indent)}")
        elif isinstance(item, dict) and item:
            lines.append(f"{indent}{_scalar(key)}:")
            _mapping(item, indent + "  ", lines)
        elif isinstance(item, list | tuple) and item:
            lines.append(f"{indent}{_scalar(key)}:")
            _sequence(item, indent, lines)
        else:
            lines.append(f"{indent}{_scalar(key)}: {_leaf(item)}")


def _sequence(value: Iterable[Any], indent: str, lines: list[str]) -> None:
    for item in value:
        if isinstance(item, str):
            lines.append(f"{indent}- {_text(item, indent)}")
        elif isinstance(item, dict | list | tuple) and item:
            start = len(lines)
            inner = indent + "  "
            if isinstance(item, dict):
                _mapping(item, inner, lines)
            else:
                _sequence(item, inner, lines)
            lines[start] = f"{indent}- {lines[start][len(inner) :]}"
        else:
            lines.append(f"{indent}- {_leaf(item)}")


def _text(value: str, indent: str) -> str:
    return _block(value, indent) if "\n" in value and _fits_block(value) else _scalar(value)


def _leaf(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    raise ValueError(
        f"{value!r} cannot be written to a manifest: expected text, a whole number, a boolean, a mapping or a list"
    )


@lru_cache(maxsize=65_536)
def _scalar(text: str) -> str:
    if _IDENTIFIER.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    if text.isprintable():
        return quoted
    if refused := re.search(_REFUSED, text):
        raise ValueError(
            f"{text!r} contains U+{ord(refused[0]):04X}, which not every YAML reader accepts: expected every character"
            " except U+007F to U+009F, U+D800 to U+DFFF, U+FFFE and U+FFFF"
        )
    return re.sub(_UNSAFE, lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _fits_block(text: str) -> bool:
    """True if a reader gets the same text from a literal block.

    A reader takes a leading space for indentation. Text that contains a tab, or a line with trailing spaces, is quoted,
    as PyYAML does.
    """
    if text[0] in " \n" or text[-1] == " " or " \n" in text or "\t" in text:
        return False
    return text.replace("\n", "").isprintable() or not re.search(_UNSAFE, text)


def _block(text: str, indent: str) -> str:
    body = text.rstrip("\n")
    trailing = len(text) - len(body)
    header = "|-" if trailing == 0 else "|" if trailing == 1 else "|+"
    inner = indent + "  "
    lines = [f"{inner}{line}" if line else "" for line in body.split("\n")]
    return "\n".join([header, *lines, *[""] * (trailing - 1)])
