"""Inputs that are changed at random end with an exit code. `python -m tests.fuzz 10000` tries more of them."""

from __future__ import annotations

from tests.fuzz import STATUSES, fuzz


def test_every_input_is_answered_and_one_in_five_reaches_validation() -> None:
    result = fuzz(300, seed=1)
    assert result.statuses.total() == 300
    assert set(result.statuses) <= set(STATUSES)
    assert result.statuses[0] + result.statuses[1] >= 15
    assert result.validated >= 60
