"""PyYAML (YAML 1.1) and ruamel.yaml (YAML 1.2) read back exactly the values that the emitter wrote."""

from __future__ import annotations

import io
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stack.model.manifest_yaml import documents

NASTY = [
    "y", "Y", "n", "yes", "No", "on", "OFF", "true", "False", "null", "~", "", " ", "1", "01", "0o7", "0x1F",
    "1e3", "1_000", "12:30:45", "1.5", ".5", ".inf", "-.INF", ".nan", "-", "--", "---", "...", "?", ":", "a: b",
    "a #b", "#a", "a:", "&a", "*a", "!a", "!!str", "|", ">", "%a", "@a", "`a", "'a'", '"a"', "[a]", "{a}",
    "a,b", "<<", "=", "2026-11-23", "a\tb", "a\n", "a\nb", "a\n\n", "\na", " a\nb", "a \nb", "a\n b", "a\r\nb",
    "\u2028", "\x00", "\x1b", "é", "日本", "😀", "\ufeff", "a\\b", 'a"b', "+1", "-1", "0", "a ", "/etc",
    "app.kubernetes.io/name", "100m", "1Gi", "sha256:abc",
]  # fmt: skip


def read_back(text: str) -> list[Any]:
    old = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 2)
    new = list(reader.load_all(io.StringIO(text)))
    assert old == new
    return old


@pytest.mark.parametrize("text", NASTY)
def test_a_string_that_looks_like_another_type_stays_a_string(text: str) -> None:
    value = {"key": text, "list": [text, {"inner": text}], text or "empty": "as a key"}
    assert read_back(documents([value])) == [value]


REFUSED = [chr(code) for code in (*range(0x7F, 0xA0), 0xFFFE, 0xFFFF)]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=REFUSED))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.lists(st.dictionaries(TEXT.filter(bool), VALUES, min_size=1, max_size=4), min_size=1, max_size=3))
def test_written_values_are_read_back(values: list[dict[str, Any]]) -> None:
    assert read_back(documents(values)) == values


@settings(max_examples=100)
@given(st.lists(TEXT, min_size=20, max_size=40))
def test_any_text_is_read_back(texts: list[str]) -> None:
    assert read_back(documents([{"texts": texts}])) == [{"texts": texts}]


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), b"bytes", {1, 2}], ids=["fraction", "not a number", "bytes", "set"]
)
def test_a_value_that_no_manifest_may_contain_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot be written to a manifest"):
        documents([{"key": value}])


@pytest.mark.parametrize("text", ["\x7f", "\x85", "\x9f", "\ud800", "\uffff"])
def test_characters_that_not_every_yaml_reader_accepts_are_refused(text: str) -> None:
    message = (
        rf"U\+{ord(text):04X}, which not every YAML reader accepts: expected every character except U\+007F to U\+009F"
    )
    with pytest.raises(ValueError, match=message):
        documents([{"key": text}])


def test_text_of_several_lines_is_a_literal_block() -> None:
    assert documents([{"a": {"file": "one\n  two\n"}}]) == "---\na:\n  file: |\n    one\n      two\n"


def test_empty_collections_stay_collections() -> None:
    assert documents([{"a": {}, "b": [], "c": [{}]}]) == "---\na: {}\nb: []\nc:\n- {}\n"
