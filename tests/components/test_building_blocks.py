from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from components.node import Replicas, Sizing
from components.operation import Name, operation
from tests.small import service

NAMES = TypeAdapter(Name)


@given(st.from_regex(r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z"))
def test_a_dns_label_is_accepted_unchanged_or_refused_as_too_long(name: str) -> None:
    try:
        assert NAMES.validate_python(name) == name
    except ValidationError:
        assert len(name) > 40


@given(st.text(max_size=50))
def test_every_accepted_name_has_only_lower_case_letters_digits_and_hyphens(name: str) -> None:
    try:
        accepted = NAMES.validate_python(name)
    except ValidationError:
        return
    assert accepted.replace("-", "").isalnum()
    assert accepted.isascii()
    assert accepted == accepted.lower()


def test_a_minimum_of_replicas_above_the_maximum_is_refused() -> None:
    with pytest.raises(ValidationError, match="min 5 is above max 3"):
        Replicas(min=5, max=3)


def test_a_limit_below_its_request_is_refused() -> None:
    with pytest.raises(ValidationError, match="cpu_limit 500m is below cpu_request 1"):
        Sizing.of(cpu=("1", "500m"), memory=("1Gi", "1Gi"))


def test_two_equal_ports_of_a_service_are_refused() -> None:
    (fault,) = service("a", operation("run", p95="1s", deadline="2s"), grpc_port=8080).faults
    assert fault.accepted == "grpc_port and http_port are both 8080"


@pytest.mark.parametrize("port", [0, 80, 1023, 65_536, 70_000])
def test_a_privileged_or_impossible_port_is_refused(port: int) -> None:
    (fault,) = service("a", http_port=port).faults
    assert re.search("greater than or equal|less than or equal", fault.accepted)
