from __future__ import annotations

from collections.abc import Iterator

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.stack.audit.rule_findings import SNAPSHOT_LINES


@pytest.fixture(autouse=True)
def _verdicts_word_for_word(request: pytest.FixtureRequest, snapshot: SnapshotAssertion) -> Iterator[None]:
    """Compare each verdict with its snapshot, because people act on the text."""
    SNAPSHOT_LINES.clear()
    yield
    if SNAPSHOT_LINES and not hasattr(request.function, "hypothesis"):
        assert snapshot == SNAPSHOT_LINES
