from __future__ import annotations

import re
import shlex

import pytest

from stack.cli import main
from stack.model.settings import ROOT
from tests.documents import Block, blocks

BLOCKS = [block for block in blocks(ROOT / "docs/review.md") if block.language == "console" and not block.not_run]


def without_line_numbers(text: str) -> list[str]:
    """Every edit of the catalogue changes the line numbers."""
    return re.sub(r"\.py:\d+", ".py", text).splitlines()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(block.commands)))
def test_a_command_prints_what_the_document_shows(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = block.commands
    main(shlex.split(command)[1:])
    assert without_line_numbers(capsys.readouterr().out) == without_line_numbers(block.text)[1:]
