from __future__ import annotations

import pytest

from tests.mermaid import Drawn, MissingProgramError, diagrams, drawn

pytestmark = pytest.mark.integration

RESERVED = "flowchart LR\n  graph-store --> b"
"""A node whose identifier begins with a word that Mermaid reserves."""


@pytest.fixture(scope="module")
def pictures() -> dict[str, Drawn]:
    try:
        return drawn({**diagrams(), "reserved": RESERVED})
    except MissingProgramError as error:
        pytest.skip(str(error))


def test_every_diagram_is_drawn(pictures: dict[str, Drawn]) -> None:
    refused = {name: each.error for name, each in pictures.items() if each.error and name != "reserved"}
    assert refused == {}
    assert len(pictures) > 5
    assert all(each.svg.startswith("<svg ") for name, each in pictures.items() if name != "reserved")


def test_a_reserved_word_is_refused(pictures: dict[str, Drawn]) -> None:
    assert "Parse error" in pictures["reserved"].error
