from __future__ import annotations

from tests.fuzz import STATUSES, fuzz


def test_every_input_ends_with_an_exit_code_and_one_in_five_reaches_validation() -> None:
    result = fuzz(300, seed=1)
    assert result.statuses.total() == 300
    assert set(result.statuses) <= set(STATUSES)
    assert result.statuses[0] + result.statuses[1] >= 15
    assert result.validated >= 60
