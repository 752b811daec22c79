"""Snapshots of what the rules say about small models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from syrupy.assertion import SnapshotAssertion

from tests.stack.audit.rule_findings import TOLD


@pytest.fixture(autouse=True)
def _verdicts_word_for_word(request: pytest.FixtureRequest, snapshot: SnapshotAssertion) -> Iterator[None]:
    """Compares each verdict of a test with its snapshot, because people act on the text. Property tests have none."""
    TOLD.clear()
    yield
    if TOLD and not hasattr(request.function, "hypothesis"):
        assert snapshot == TOLD
