from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, ValidationError
from voice_policies import Fault, InvalidInputError, faults_of
from voice_policies.bundle import Idempotency
from voice_policies.closed_model import ClosedModel

FIRST = Fault("a.b", "is 1", "expected 2")
SECOND = Fault("", "is not YAML", "line 3", source="b.yaml:3")


class Call(ClosedModel):
    idempotency: Idempotency


def test_errors_of_one_source_are_joined_and_each_fault_is_named_once() -> None:
    joined = InvalidInputError.joined([InvalidInputError("x", [FIRST, SECOND]), InvalidInputError("x", [FIRST])])
    assert str(joined) == "x: 2 faults\n  a.b: is 1; expected 2\n  b.yaml:3: is not YAML; line 3"


def test_errors_of_several_sources_are_joined_with_the_source_of_each_fault() -> None:
    joined = InvalidInputError.joined([InvalidInputError("x", [FIRST]), InvalidInputError("y", [FIRST, SECOND])])
    assert str(joined).splitlines() == [
        "x and y: 3 faults",
        "  x: a.b: is 1; expected 2",
        "  y: a.b: is 1; expected 2",
        "  b.yaml:3: is not YAML; line 3",
    ]


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("idempotant", "did you mean idempotent? expected 'idempotent', 'with_key' or 'never'"),
        ("x", "expected 'idempotent', 'with_key' or 'never'"),
        (1, "expected 'idempotent', 'with_key' or 'never'"),
    ],
)
def test_the_nearest_accepted_word_is_suggested_if_one_is_near(value: object, accepted: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Call.model_validate({"idempotency": value})
    assert [fault.accepted for fault in faults_of(caught.value)] == [accepted]


class Ports(ClosedModel):
    ports: Annotated[tuple[int, ...], Field(strict=False, min_length=2)]


@pytest.mark.parametrize(
    ("ports", "faults"),
    [
        (["a", 1], ["ports[0]: is 'a'; expected a whole number"]),
        (["a"], ["ports[0]: is 'a'; expected a whole number", "ports: is refused; expected at least 2"]),
        ([1], ["ports: is refused; expected at least 2"]),
    ],
)
def test_an_invalid_item_counts_in_the_length_of_its_list(ports: list[object], faults: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Ports.model_validate({"ports": ports})
    assert [str(fault) for fault in faults_of(caught.value)] == faults


def test_the_error_for_a_python_list_says_that_a_tuple_is_expected() -> None:
    class Strict(ClosedModel):
        ports: tuple[int, ...]

    with pytest.raises(ValidationError) as caught:
        Strict.model_validate({"ports": [1]})
    assert str(*faults_of(caught.value)) == "ports: is refused; expected a tuple: write (a, b) in place of [a, b]"
