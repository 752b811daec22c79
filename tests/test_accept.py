from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest

from tests import accept
from tests.accept import REVIEWED, committed


@pytest.mark.parametrize("family", REVIEWED)
def test_rendered_files_equal_the_reviewed_snapshots(family: str) -> None:
    for path, content in REVIEWED[family]().items():
        reviewed = path.read_text(encoding="utf-8") if path.exists() else ""
        changes = unified_diff(reviewed.splitlines(), content.splitlines(), str(path), "rendered", lineterm="")
        assert "\n".join(changes) == "", "run `make accept`, and review the difference"


def test_every_committed_snapshot_belongs_to_a_rendered_file() -> None:
    assert committed() == {path for family in REVIEWED.values() for path in family()}


def test_accept_writes_rendered_files_and_deletes_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "SNAPSHOTS", tmp_path)
    monkeypatch.setattr(accept, "COMMENT", tmp_path / "no-comment.md")
    monkeypatch.setattr(accept, "REVIEWED", {"one": lambda: {tmp_path / "dev" / "new.yaml": "a: 1\n"}})
    (tmp_path / "left-over.yaml").touch()
    accept.accept()
    assert {path: path.read_text(encoding="utf-8") for path in committed()} == {tmp_path / "dev" / "new.yaml": "a: 1\n"}
