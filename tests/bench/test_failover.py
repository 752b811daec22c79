from __future__ import annotations

import pytest

from bench.failover.__main__ import GOAL, Measured
from tests.integration.cache_clients import REPLICATED_WITHIN, replicated


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (Measured(gap=GOAL, lost=9, replicated=0), True),
        (Measured(gap=GOAL + 0.1, lost=0, replicated=0), False),
        (Measured(gap=0.1, lost=1, replicated=1), False),
    ],
)
def test_the_goal_is_missed_after_a_long_gap_or_the_loss_of_a_replicated_write(measured: Measured, met: bool) -> None:
    assert measured.meets_goal == met


def test_a_lost_write_during_the_failover_does_not_count_as_replicated() -> None:
    stopped, elected = 100.0, 106.0
    lost = {"early": stopped - REPLICATED_WITHIN, "last": 99.9, "while stopping": 100.1, "new primary": elected}
    assert replicated(lost, stopped, elected).keys() == {"early", "new primary"}
