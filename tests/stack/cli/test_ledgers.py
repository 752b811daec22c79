from __future__ import annotations

import json
import shlex

import pytest

from stack.audit.ledgers import LEDGERS
from stack.cli import main
from stack.model.settings import ROOT
from tests.documents import blocks
from tests.platforms import platform


@pytest.mark.parametrize("ledger", LEDGERS)
def test_a_ledger_is_an_aligned_table_without_colour_in_a_pipe(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "prod", "--ledger", ledger]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for table in LEDGERS[ledger](platform("prod")).tables:
        head, *rows = out[out.index(table.title) :].splitlines()[1 : len(table.rows) + 2]
        last = head.rindex(table.columns[-1].name)
        assert all(row[last - 2 : last] == "  " for row in rows), (
            "the last column begins at the same place in every row"
        )


def test_a_ledger_as_json_has_numbers_and_one_as_markdown_has_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "prod", "--ledger", "connections", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (table,) = document["tables"]
    assert document["ledger"] == "connections"
    assert table["rows"][-1]["service"] == "total"
    assert table["rows"][-1]["with surge"] == sum(row["with surge"] for row in table["rows"][:-1])
    assert main(["check", "prod", "--ledger", "connections", "--format", "markdown"]) == 0
    assert "| service | pool of a replica |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["prod", "--ledger", "cost", "--format", "sarif"],
            "--format: is 'sarif' with --ledger; expected one of json, markdown, text",
        ),
        (["prod", "--ledger", "cost", "--on", "2026-11-30"], "--on: does not change a ledger; leave out --on"),
        (["--from", ".", "--ledger", "cost"], "--ledger: needs the typed model; name an ENV in place of --from PATH"),
    ],
)
def test_an_option_that_a_ledger_cannot_use_is_bad_input(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_refusal_of_an_unknown_ledger_suggests_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "prod", "--ledger", "costs"])
    assert "did you mean cost?" in capsys.readouterr().err


def test_the_ledger_commands_of_the_review_document_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "review.md") if "--ledger" in block.text]
    for line in block.commands:
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert capsys.readouterr().out.count("total") >= len(LEDGERS)
