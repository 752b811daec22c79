"""Errors cross the border of a process: pools, task queues and debuggers pickle and copy them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from voice_policies import Fault, InvalidInputError
from voice_runtime import (
    AttemptTimeoutError,
    BulkheadFullError,
    CalleeError,
    CircuitOpenError,
    DeadlineExceededError,
    NoThreadError,
    RateLimitedError,
    RetriesExhaustedError,
    SoftCallError,
    UnknownCallError,
)
from voice_runtime.outcome import FailedResultError, Failure

ERRORS = [
    CircuitOpenError("rag-engine.context", 1.5),
    BulkheadFullError("rag-engine.context"),
    RateLimitedError("run"),
    NoThreadError("rag-engine.context"),
    AttemptTimeoutError("rag-engine.context", None, 2),
    DeadlineExceededError("rag-engine.context", None, 2),
    RetriesExhaustedError("rag-engine.context", 1.0, 3, reason="budget"),
    SoftCallError("rag-engine.context", attempts=2),
    CalleeError("rag-engine.context", condition="aborted"),
    FailedResultError("503", Failure("unavailable")),
    UnknownCallError("outbound call", "rag", ["rag-engine.context"]),
    InvalidInputError("bundle.json", [Fault("metadata", "is missing", "expected a service")]),
]
COPIES: dict[str, Callable[[Exception], Exception]] = {
    "pickled": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301  # our own bytes
    "copied": copy.copy,
    "deeply copied": copy.deepcopy,
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("how", COPIES)
def test_an_error_keeps_its_text_and_its_data(error: Exception, how: str) -> None:
    error.add_note("a note")
    other = COPIES[how](error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert {name: str(value) for name, value in vars(other).items()} == {
        name: str(value) for name, value in vars(error).items()
    }
