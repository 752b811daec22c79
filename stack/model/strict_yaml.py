"""YAML files that people edit, read by the rules of YAML 1.2.

No value is lost or changed silently. `yes`, `on`, `1:30` and dates are text, as Pulumi reads them. YAML parsers
disagree about duplicate keys and about numbers with a leading zero, so both are faults. Anchors, tags outside YAML's
core schema and deep nesting are refused, because no file here needs them. Anchors can exhaust a parser's memory. Deep
nesting can exhaust its stack.
"""

from __future__ import annotations

import codecs
import re
import reprlib
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml
from voice_policies import Fault, InvalidInputError

__all__ = ["read_documents", "read_yaml"]

DEEPEST = 100
"""Deepest nesting of mappings and lists. Rendered manifests have at most 13 levels."""

CORE_PREFIX = "tag:yaml.org,2002:"
"""Prefix of the core schema's tags. A file writes it as `!!`."""

LARGEST = 100 * 2**20
"""Size of the largest accepted file, in bytes. Files of manifests are far smaller, and the memory is far larger."""


def read_yaml(path: Path) -> Any:
    """The only document of a file. Raises `InvalidInputError` if the file cannot be read or a value is ambiguous."""
    document, faults = read_with_faults(path)
    if faults:
        raise InvalidInputError(path.name, faults)
    return document


def read_with_faults(path: Path) -> tuple[Any, list[Fault]]:
    """The only document of a file, and a fault for each ambiguous value.

    Raises `InvalidInputError` if the file cannot be read.
    """
    with _loader(path) as loader:
        return loader.get_single_data(), loader.faults


def read_documents(path: Path) -> list[Any]:
    """Every document of a file; raises as `read_yaml` does."""
    return [document for document, _ in read_located_documents(path)]


def read_located_documents(path: Path) -> list[tuple[Any, yaml.Node]]:
    """Every document of a file, with its root node; nodes contain line numbers. Raises as `read_yaml` does."""
    documents = []
    with _loader(path) as loader:
        while loader.check_node() and (node := loader.get_node()):
            documents.append((loader.construct_document(node), node))
    if loader.faults:
        raise InvalidInputError(path.name, loader.faults)
    return documents


@contextmanager
def _loader(path: Path) -> Iterator[_StrictLoader]:
    text = _text(path)
    try:
        _refuse_exhausting(text)
        yield _StrictLoader(text, path.name)
    except yaml.reader.ReaderError as error:
        line = text.encode(errors="replace").count(b"\n", 0, error.position) + 1
        raise _not_yaml(path, line, "a control character is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _not_yaml(path, mark.line + 1 if mark else 1, problem) from None
    except _RefusedError as error:
        fault = Fault("", error.value, error.accepted, f"{path.name}:{error.line}")
        raise InvalidInputError(path.name, [fault]) from None


class _RefusedError(Exception):
    """Valid YAML that no file here may use."""

    def __init__(self, mark: Any, value: str, accepted: str) -> None:
        super().__init__(value)
        self.line, self.value, self.accepted = mark.line + 1, value, accepted


def _not_yaml(path: Path, line: int, problem: str) -> InvalidInputError:
    return InvalidInputError(path.name, [Fault("", "is not YAML", problem, f"{path.name}:{line}")])


def _text(path: Path) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. No file here needs the other encodings of YAML 1.2."""
    try:
        _refuse_endless(path)
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(path.name, [Fault("", "cannot be read", error.strerror or str(error))]) from None
    utf_32 = content.startswith(codecs.BOM_UTF32_LE)  # the mark of UTF-32 begins with the mark of UTF-16
    utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not utf_32
    encoding = "UTF-16" if utf_16 else "UTF-8"
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = Fault(
            "",
            f"the byte at position {error.start + 1} is not {encoding}",
            "save the file as UTF-8",
            f"{path.name}:{line}",
        )
        raise InvalidInputError(path.name, [fault]) from None


def _refuse_endless(path: Path) -> None:
    """Raise for a pipe or a device, whose content may never end, and for a file that could fill the memory."""
    found = path.stat()
    is_file = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)  # a directory fails in `read_bytes`
    value = f"has {found.st_size} bytes" if is_file else "is a pipe or a device"
    if not is_file or found.st_size > LARGEST:
        raise InvalidInputError(path.name, [Fault("", value, f"expected a file of at most {LARGEST} bytes")])


def _refuse_exhausting(text: str) -> None:
    """Raise for nesting that would exhaust the stack, and for aliases, which can grow without bound."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            value = f"is nested deeper than {DEEPEST} levels"
            raise _RefusedError(event.start_mark, value, f"expected at most {DEEPEST} levels")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise _RefusedError(event.start_mark, f"has the anchor or alias {event.anchor!r}", "write the value out")


class _StrictLoader(yaml.CSafeLoader):
    """The core schema of YAML 1.2. It records each duplicate key; PyYAML would silently keep the last value."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 - PyYAML never changes this attribute in place
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.faults: list[Fault] = []
        self._name = name

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT002 - PyYAML's own signature
        """The value of a node. Raises for a tag that the content does not fit, such as `!!int` on text."""
        tag = node.tag.removeprefix(CORE_PREFIX)
        if tag in _CORE and not _CORE[tag].fits(node):
            kinds: dict[type[yaml.Node], str] = {yaml.SequenceNode: "a list", yaml.MappingNode: "a mapping"}
            content = kinds.get(type(node)) or reprlib.repr(node.value)
            raise _RefusedError(node.start_mark, f"has the tag !!{tag}, but is {content}", _CORE[tag].accepted)
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT002 - PyYAML's own signature
        found: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in found:
                self._note(key, f"key {key.value!r} appears twice", "keep one of them")
            found.add(key.value)
        return yaml.constructor.BaseConstructor.construct_mapping(self, node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """A decimal, octal (`0o`) or hexadecimal (`0x`) number."""
        text = str(node.value)
        if re.fullmatch(r"[-+]?0[0-9]+", text):
            self._note(node, f"{text} is octal for some YAML parsers, decimal for others", "leave out the leading zero")
            return int(text)
        return int(text, 0)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """A number with a fraction or an exponent, infinity, or not-a-number."""
        return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))

    def construct_null(self, _: yaml.ScalarNode) -> None:
        """The null value."""

    def construct_bool(self, node: yaml.ScalarNode) -> bool:
        """`true` or `false`."""
        return bool(node.value.lower() == "true")

    def refuse(self, node: yaml.Node) -> None:
        """Raise for a tag outside the core schema."""
        accepted = "expected plain text, numbers, lists and mappings"
        raise _RefusedError(node.start_mark, f"has the tag {node.tag.replace(CORE_PREFIX, '!!')}", accepted)

    def _note(self, node: yaml.Node, value: str, accepted: str) -> None:
        self.faults.append(Fault("", value, accepted, f"{self._name}:{node.start_mark.line + 1}"))


class _CoreTag(NamedTuple):
    """One tag of the core schema."""

    constructor: Callable[[_StrictLoader, Any], Any]
    accepted: str
    node: type[yaml.Node] = yaml.ScalarNode
    pattern: str | None = None
    """Matches the plain scalars of this tag. `None`: the tag permits any content."""
    first: tuple[str, ...] = ()
    """First characters of the plain scalars, by which PyYAML finds the pattern. `""` stands for an empty scalar."""

    def fits(self, node: yaml.Node) -> bool:
        """True if the tag permits the content of the node."""
        return isinstance(node, self.node) and (self.pattern is None or bool(re.fullmatch(self.pattern, node.value)))


_CORE = {
    "null": _CoreTag(
        _StrictLoader.construct_null, "expected null", pattern=r"~|null|Null|NULL|", first=("~", "n", "N", "")
    ),
    "bool": _CoreTag(
        _StrictLoader.construct_bool,
        "expected true or false",
        pattern=r"true|True|TRUE|false|False|FALSE",
        first=tuple("tTfF"),
    ),
    "int": _CoreTag(
        _StrictLoader.construct_integer,
        "expected a whole number of at most 100 digits",
        pattern=r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}",
        first=tuple("-+0123456789"),
    ),
    "float": _CoreTag(
        _StrictLoader.construct_float,
        "expected a number such as 1.5",
        pattern=r"[-+]?(\.[0-9]{1,100}|[0-9]{1,100}(\.[0-9]{0,100})?)([eE][-+]?[0-9]{1,4})?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        first=tuple("-+0123456789."),
    ),
    "str": _CoreTag(yaml.CSafeLoader.construct_yaml_str, "expected text"),
    "seq": _CoreTag(yaml.CSafeLoader.construct_yaml_seq, "expected a list", yaml.SequenceNode),
    "map": _CoreTag(yaml.CSafeLoader.construct_yaml_map, "expected a mapping", yaml.MappingNode),
}
"""The tags of the core schema (YAML 1.2.2, section 10.3.2).

A whole number of more than a hundred digits is text. So is a fraction with more than a hundred digits on one side of
the point.
"""
for _name, _tag in _CORE.items():
    _StrictLoader.add_constructor(f"{CORE_PREFIX}{_name}", _tag.constructor)
    if _tag.pattern is not None:
        _StrictLoader.add_implicit_resolver(f"{CORE_PREFIX}{_name}", re.compile(f"^(?:{_tag.pattern})$"), _tag.first)
_StrictLoader.add_constructor(None, _StrictLoader.refuse)
