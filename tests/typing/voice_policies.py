"""Only a type checker reads this file. Nothing in the file runs."""

from __future__ import annotations

from fractions import Fraction
from typing import assert_type

from voice_policies import (
    CircuitBreaker,
    Duration,
    Fault,
    InvalidInputError,
    OutboundCall,
    PolicyBundle,
    Rate,
    Ratio,
    Saga,
    SagaStep,
    ServiceSettings,
)


def bundle(text: bytes) -> None:
    read = PolicyBundle.from_json(text, "policy.json")
    assert_type(read, PolicyBundle)
    assert_type(read.sealed(), PolicyBundle)
    assert_type(read.outbound, tuple[OutboundCall, ...])
    assert_type(read.sagas, tuple[Saga, ...])
    assert_type(read.outbound[0].circuit_breaker, CircuitBreaker | None)
    assert_type(ServiceSettings.from_json(text, "settings.json"), ServiceSettings)


def measures(duration: Duration, ratio: Ratio, rate: Rate) -> None:
    assert_type(duration.seconds, float)
    assert_type(ratio.fraction, Fraction)
    assert_type(rate.per_second, float)


def faults(error: InvalidInputError) -> None:
    assert_type(error.faults, tuple[Fault, ...])


def stages(saga: Saga) -> None:
    assert_type(saga.stages, tuple[tuple[SagaStep, ...], ...])


Duration(5)  # type: ignore[arg-type]  # a duration is written with its unit
CircuitBreaker(failure_ration=Ratio("50%"))  # type: ignore[call-arg]  # a misspelt field
