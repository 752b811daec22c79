from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from voice_policies import InvalidInputError

from stack.output.tree import INDEX, LEDGER, STAGING, write_tree


def tree_of(*paths: str, text: str = "new") -> dict[str, str]:
    listed = {"environment": "dev", "resources": [{"file": path} for path in paths[:1]], "files": list(paths[1:])}
    return {**dict.fromkeys(paths, text), INDEX: json.dumps(listed)}


def found(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_new_run_replaces_the_files_of_the_earlier_run_and_removes_obsolete_ones(tmp_path: Path) -> None:
    write_tree(tmp_path, tree_of("a/one.yaml", "b/two.json", text="old"))
    files = tree_of("a/three.yaml", "a/one.yaml")
    assert write_tree(tmp_path, files) == ()
    assert found(tmp_path) == files
    assert not (tmp_path / "b").exists()


def test_files_of_somebody_else_stay_and_are_listed(tmp_path: Path) -> None:
    write_tree(tmp_path, tree_of("a/one.yaml", "b/two.json", text="old"))
    (tmp_path / "NOTES").write_text("mine")
    (tmp_path / "b" / "sketch.txt").write_text("mine")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "NOTES")
    others = write_tree(tmp_path, tree_of("a/one.yaml"))
    assert others == (".git/", "NOTES", "b/", "link")
    assert {path for path, text in found(tmp_path).items() if text == "mine"} >= {
        ".git/HEAD",
        "NOTES",
        "b/sketch.txt",
    }


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("[" * 100_000, id="too deeply nested"),
        pytest.param(None, id="no index"),
        pytest.param("", id="empty file"),
        "[]",
        "{}",
        '{"name": "a web page"}',
        '{"environment": "dev", "resources": [{}]}',
        '{"environment": "dev", "resources": [], "files": ["../thesis.txt"]}',
        '{"environment": "dev", "resources": [], "files": ["/etc/passwd"]}',
        '{"environment": "dev", "resources": [], "files": [7]}',
    ],
)
def test_a_directory_without_a_valid_index_is_refused_and_keeps_its_files(tmp_path: Path, index: str | None) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    if index is not None:
        (out / INDEX).write_text(index)
    before = found(tmp_path)
    with pytest.raises(InvalidInputError, match=r"contains files that `voice render` did not write: .*thesis\.txt"):
        write_tree(out, tree_of("a/one.yaml"))
    assert found(tmp_path) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_an_index_that_is_no_regular_file_is_refused_immediately(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / INDEX)
    with pytest.raises(InvalidInputError, match=f"contains files that `voice render` did not write: {INDEX}"):
        write_tree(tmp_path, tree_of("a/one.yaml"))


def test_a_rendered_file_does_not_overwrite_a_different_file_of_somebody_else(tmp_path: Path) -> None:
    write_tree(tmp_path, tree_of("a/one.yaml"))
    (tmp_path / "a" / "two.yaml").write_text("mine")
    (tmp_path / "c").write_text("mine")
    before = found(tmp_path)
    with pytest.raises(InvalidInputError) as refused:
        write_tree(tmp_path, tree_of("a/one.yaml", "a/two.yaml", "c/three.yaml", text="newer"))
    assert [fault.path for fault in refused.value.faults] == [
        str(tmp_path / "a/two.yaml"),
        str(tmp_path / "c/three.yaml"),
    ]
    assert found(tmp_path) == before
    (tmp_path / "c").unlink()
    (tmp_path / "a" / "two.yaml").write_text("newer")
    write_tree(tmp_path, tree_of("a/one.yaml", "a/two.yaml", "c/three.yaml", text="newer"))


def test_no_file_is_written_through_a_symlink_that_leaves_the_tree(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write_tree(out, tree_of("b/one.yaml"))
    elsewhere.mkdir()
    (out / "a").symlink_to(elsewhere)
    with pytest.raises(InvalidInputError, match="move the file away"):
        write_tree(out, tree_of("a/one.yaml"))
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("failing", range(7), ids=lambda index: f"move {index + 1} fails")
def test_a_failed_run_leaves_the_earlier_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    out = tmp_path / "out"
    write_tree(out, tree_of("a/one.yaml", "b/two.json", text="old"))
    before = found(out)
    real, count = Path.replace, 0

    def refuse(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == failing + 1:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_tree(out, tree_of("a/one.yaml", "c/three.yaml"))
    assert found(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_no_trace_of_a_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, text: str, encoding: str | None = None) -> int:  # noqa: ARG001 - the name in pathlib
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_tree(tmp_path / "out", tree_of("a/one.yaml"))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from stack.cli import voice
real, count, stop = Path.replace, 0, int(sys.argv[2])

def replace(self, target):
    global count
    count += 1
    if count == stop:
        os.kill(os.getpid(), int(sys.argv[3]))
    return real(self, target)

Path.replace = replace
voice(["render", "dev", "-o", sys.argv[1]])
"""


def killed(out: Path, step: int, by: signal.Signals) -> int:
    command = [sys.executable, "-c", KILLED, str(out), str(step), str(int(by))]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize("step", [1, 2, 30], ids=lambda step: f"killed before move {step}")
def test_the_next_run_after_a_kill_completes_the_tree_and_removes_leftovers(tmp_path: Path, step: int) -> None:
    out = tmp_path / "out"
    assert killed(out, step, signal.SIGKILL) == -signal.SIGKILL
    subprocess.run([sys.executable, "-m", "stack.cli", "render", "dev", "-o", str(out)], check=True)
    assert sorted(path.name for path in out.iterdir()) == [INDEX, LEDGER, "manifests", "policies"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_terminated_run_leaves_nothing_behind(tmp_path: Path) -> None:
    assert killed(tmp_path / "out", 20, signal.SIGTERM) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert STAGING.startswith(".")


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [
        ("ascii", ("render", "dev")),
        *((encoding, ("check", "prod")) for encoding in ("ascii", "cp437", "cp1252", "latin-1")),
        ("ascii", ("check", "prod", "--format", "json")),
    ],
)
def test_output_is_written_in_any_encoding_of_the_terminal(
    tmp_path: Path, encoding: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "build" / "dev").mkdir(parents=True)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "stack.cli", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode(encoding)
    if "json" in arguments:
        assert json.loads(done.stdout.decode(encoding))["rules"]
