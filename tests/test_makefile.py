from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stack.model.settings import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("written", "stays"),
    [("{checkout}", True), ("/somewhere/else", False), ("", True)],
    ids=["environment of this checkout", "environment of another checkout", "unfinished environment"],
)
def test_a_moved_or_copied_checkout_does_not_use_the_environment_of_the_other_place(
    written: str, stays: bool, checkout: Path
) -> None:
    (checkout / ".venv/.installed").write_text(written.format(checkout=checkout.resolve()))
    assert make(checkout, "help").returncode == 0
    assert (checkout / ".venv").exists() == stays


def test_an_environment_without_pip_is_completed(checkout: Path) -> None:
    for file in ("requirements.lock", "pyproject.toml", "policies/pyproject.toml"):
        (checkout / file).parent.mkdir(exist_ok=True)
        (checkout / file).touch()
    system, unfinished = checkout / "python", checkout / ".venv/bin/python"
    system.write_text('#!/bin/sh\necho "$@" >> log\n')
    unfinished.write_text("#!/bin/sh\nexit 1\n")
    for program in (system, unfinished):
        program.chmod(0o755)
    make(checkout, "PYTHON=./python", ".venv/.installed")
    assert (checkout / "log").read_text().splitlines()[-1] == "-m venv .venv"
