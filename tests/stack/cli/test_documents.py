from __future__ import annotations

from pathlib import Path

import pytest

from stack.cli import main
from stack.output.documents import bundle_schema


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policies" / "schema.json"
    monkeypatch.setattr("stack.output.documents.SCHEMA", path)
    return path


def test_a_program_that_has_the_old_file_open_reads_the_old_content(schema: Path) -> None:
    schema.parent.mkdir()
    schema.write_text("earlier", encoding="utf-8")
    with schema.open(encoding="utf-8") as reader:
        assert main(["schema"]) == 0
        assert reader.read() == "earlier"
    assert schema.read_text(encoding="utf-8") == bundle_schema()
    assert [entry.name for entry in schema.parent.iterdir()] == [schema.name]


def test_a_file_that_cannot_be_written_is_bad_input(schema: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema.mkdir(parents=True)
    assert main(["schema"]) == 2
    assert "schema.json" in capsys.readouterr().err
    assert [entry.name for entry in schema.parent.iterdir()] == [schema.name]
