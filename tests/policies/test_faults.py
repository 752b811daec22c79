from __future__ import annotations

import pytest
from pydantic import ValidationError
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
