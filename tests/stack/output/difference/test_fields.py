from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stack.output.difference.fields import ABSENT, FieldChange, field_changes

KEYS = st.sampled_from(["name", "spec", "app.kubernetes.io/name", "a", "from", "except"])
SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["", "x", "y", "1"])
VALUES = st.recursive(
    SCALARS | st.dictionaries(KEYS, SCALARS).map(lambda value: json.dumps(value, indent=2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def changes(before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    return [(field.path, field.before, field.after) for field in field_changes(before, after)]


@given(VALUES, VALUES)
def test_a_comparison_finds_a_changed_field_exactly_if_the_values_differ(before: Any, after: Any) -> None:
    equal = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert (not list(field_changes(before, after))) == equal


@given(VALUES, VALUES)
def test_the_reverse_comparison_finds_the_same_fields(before: Any, after: Any) -> None:
    there = {field.path: (repr(field.before), repr(field.after)) for field in field_changes(before, after)}
    back = {_turned(field.path): (repr(field.after), repr(field.before)) for field in field_changes(after, before)}
    assert there == back


def _turned(path: str) -> str:
    return re.sub(r"\[(\d+), now (\d+)\]", r"[\2, now \1]", path)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"spec": {"replicas": 2}}, {"spec": {"replicas": 3}}, [("spec.replicas", 2, 3)]),
        ({"a": 1}, {"b": None}, [("a", 1, ABSENT), ("b", ABSENT, None)]),
        ({"on": True}, {"on": 1}, [("on", True, 1)]),
        ({"labels": {"x/y": "a"}}, {"labels": {"x/y": "b"}}, [("labels[x/y]", "a", "b")]),
        ({"ports": [1, 2]}, {"ports": (1, 3)}, [("ports[1]", 2, 3)]),
    ],
    ids=["nested field", "absent and null", "boolean and number", "key with a slash", "list item"],
)
def test_a_change_has_the_path_and_both_values_of_its_field(before: Any, after: Any, expected: Any) -> None:
    assert changes(before, after) == expected


def test_list_items_are_matched_by_name() -> None:
    before = [{"name": "app", "image": "a:1"}, {"name": "proxy", "image": "p:1"}]
    after = [{"name": "first", "image": "f:1"}, {"name": "app", "image": "a:2"}, {"name": "proxy", "image": "p:1"}]
    assert changes(before, after) == [
        ("[app].image", "a:1", "a:2"),
        ("[first]", ABSENT, {"name": "first", "image": "f:1"}),
    ]


def rules(direction: str, *peers: tuple[dict[str, Any], int]) -> list[dict[str, Any]]:
    return [{direction: [peer], "ports": [{"port": port}]} for peer, port in peers]


def pods(namespace: str, name: str) -> dict[str, Any]:
    labels = {"namespaceSelector": {"kubernetes.io/metadata.name": namespace}, "podSelector": {"x/name": name}}
    return {selector: {"matchLabels": label} for selector, label in labels.items()}


OUTSIDE = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}


@pytest.mark.parametrize("direction", ["from", "to"])
def test_rules_of_a_network_policy_are_matched_by_their_peers(direction: str) -> None:
    before = rules(direction, (pods("apps", "b"), 1), (pods("apps", "c"), 1), (OUTSIDE, 443))
    added = rules(direction, (pods("apps", "a"), 1))
    after = added + rules(direction, (pods("apps", "b"), 1), (pods("apps", "c"), 2), (OUTSIDE, 465))
    assert changes(before, after) == [
        ("[apps/c].ports[0].port", 1, 2),
        ("[0.0.0.0/0].ports[0].port", 443, 465),
        ("[apps/a]", ABSENT, added[0]),
    ]


def test_rules_with_equal_peers_are_matched_by_their_content() -> None:
    before = rules("to", (pods("apps", "a"), 1), (pods("apps", "a"), 2), (pods("apps", "a"), 3))
    assert changes(before, before[1:]) == [("[0]", before[0], ABSENT)]
    changed = rules("to", (pods("apps", "a"), 2), (pods("apps", "a"), 4))
    assert changes(before, changed) == [("[0]", before[0], ABSENT), ("[2, now 1].ports[0].port", 3, 4)]


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")], ids=["other order", "equal names"])
def test_the_paths_of_reordered_items_have_positions_in_place_of_names(names: tuple[str, str]) -> None:
    before = [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
    after = [{"name": name, "value": item["value"]} for name, item in zip(names, before, strict=True)]
    assert all(path.startswith(("[0]", "[1]")) for path, *_ in changes(before, after))
    assert changes(before, after)


def test_text_that_contains_json_is_compared_as_a_document() -> None:
    before, after = json.dumps({"outbound": [{"name": "redis.access", "timeout": "20ms"}]}), '{"outbound": []}'
    assert [path for path, *_ in changes({"policy.json": before}, {"policy.json": after})] == [
        "[policy.json].outbound[redis.access]"
    ]


def test_json_text_that_differs_only_in_blanks_is_compared_as_text() -> None:
    assert list(field_changes('{"a": 1}', '{"a":1}', "data")) == [FieldChange("data", '{"a": 1}', '{"a":1}')]
