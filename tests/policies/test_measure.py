from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from voice_policies import Bytes, Cpu, Duration, Rate, Ratio
from voice_policies.measure import Measure, Text

MEASURES: list[type[Measure]] = [Duration, Cpu, Bytes]
TEXTS: list[type[Text]] = [*MEASURES, Ratio, Rate]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("1.5s", 1.5), ("1h30m", 5400), ("2m", 120), ("0s", 0), ("250us", 0.00025), ("1d", 86_400)],
)
def test_a_duration_is_parsed_in_each_unit_and_in_two_units_together(text: str, seconds: float) -> None:
    assert Duration(text).seconds == seconds


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (Duration("1500ms"), "1500ms"),
        (Duration("60s"), "1m"),
        (Duration("0ms"), "0s"),
        (Cpu("1000m"), "1"),
        (Cpu("0.5"), "500m"),
        (Cpu("1.5"), "1500m"),
        (Bytes("1024Mi"), "1Gi"),
        (Bytes("1.5Gi"), "1536Mi"),
        (Bytes("0"), "0"),
        (Ratio("0.5"), "50%"),
        (Ratio("0.1%"), "0.1%"),
        (Ratio("99.99%"), "99.99%"),
        (Ratio("1"), "100%"),
        (Rate("400/s"), "400/s"),
    ],
)
def test_each_value_has_one_canonical_text(value: Text, canonical: str) -> None:
    assert str(value) == canonical


WRONG = [
    "", " ", "-1s", "1 s", "1S", "1e3s", "٣s", "1s\n", "512MB", "512mi", "101%", "-1%", "nan", "inf", "0/s",
    "1/w", "9" * 40, "1m1",
]  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("text", WRONG)
def test_the_error_for_an_invalid_text_names_the_accepted_form(kind: type[Text], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(kind.accepts)):
        kind(text)


@pytest.mark.parametrize(("kind", "text"), [(Duration, "1.5us"), (Duration, "0.0001ms"), (Bytes, "1.001Ki")])
def test_a_fraction_of_the_smallest_unit_is_refused(kind: type[Text], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(kind.accepts)):
        kind(text)


@pytest.mark.parametrize("kind", [Duration, Rate])
def test_a_text_without_a_unit_is_refused(kind: type[Text]) -> None:
    with pytest.raises(ValueError, match=re.escape(kind.accepts)):
        kind("1")


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize(
    "value", [1, 1.5, True, None, [], {}], ids=["whole-number", "fraction", "boolean", "null", "list", "mapping"]
)
def test_a_value_that_is_not_a_text_is_refused(kind: type[Text], value: object) -> None:
    with pytest.raises(ValidationError, match=re.escape(kind.accepts)):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize("kind", MEASURES)
@given(units=st.integers(min_value=0, max_value=10**15))
def test_canonical_text_parses_back_to_the_same_value(kind: type[Measure], units: int) -> None:
    value = kind.of_units(units % 10**11 if kind is Cpu else units)
    assert kind(str(value)) == value
    assert str(kind(str(value))) == str(value)


@given(billionths=st.integers(min_value=0, max_value=10**9))
def test_a_ratio_parses_back_to_the_same_number(billionths: int) -> None:
    value = Ratio(f"{Decimal(billionths) / 10**7:f}%")
    assert float(Ratio(str(value))) == float(value)
    assert value == pytest.approx(billionths / 10**9, abs=1e-12)


@given(text=st.text(max_size=40))
def test_any_text_is_parsed_or_refused_with_one_kind_of_error(text: str) -> None:
    for kind in TEXTS:
        try:
            value = kind(text)
        except ValueError as error:
            assert str(error) == f"expected {kind.accepts}"
        else:
            assert kind(str(value)) == value


def test_values_of_different_kinds_cannot_be_compared() -> None:
    with pytest.raises(TypeError, match="Duration and Bytes"):
        _ = Duration("1s") < Bytes("1Ki")  # type: ignore[operator]  # the test compares two kinds
    assert Duration("0s") != Bytes("0")


def test_values_are_immutable_and_hash_by_value() -> None:
    duration = Duration("1s")
    with pytest.raises(AttributeError, match="immutable"):
        duration.units = 2
    assert len({Duration("1000ms"), Duration("1s"), Duration("2s")}) == 2


def test_a_difference_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        _ = Duration("1s") - Duration("2s")


def test_whole_seconds_are_rounded_up() -> None:
    assert Duration("1500ms").whole_seconds() == 2
    assert Duration("0s").whole_seconds() == 0


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301  # our own bytes
    ids=["copy", "deep", "pickle"],
)
@pytest.mark.parametrize(
    "value",
    [Duration("1h30m"), Duration("7us") * 10**20, Cpu("250m"), Bytes("1.5Gi"), Ratio("33.3%"), Rate("60/m")],
    ids=str,
)
def test_a_copy_equals_the_original(value: Text, copied: Callable[[Text], Text]) -> None:
    found = copied(value)
    assert type(found) is type(value)
    assert (found, str(found)) == (value, str(value))
