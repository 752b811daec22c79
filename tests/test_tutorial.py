"""docs/tutorial.md, typed as written: its commands succeed and print what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stack.model.settings import ROOT
from tests.documents import Block, blocks

BLOCKS = [block for block in blocks(ROOT / "docs" / "tutorial.md") if not block.not_run]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after every command of the tutorial."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("stack", "components", "runtime"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
        shutil.copy2(file, folder)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    for block in BLOCKS:
        _type(block, folder)
    return folder


def _type(block: Block, folder: Path) -> None:
    """Type a block. If it shows output, type its commands one by one and compare what each prints."""
    activate = f". {folder}/.venv/bin/activate\n"
    # Python takes a module that changes twice in a second, to text of the same length, for the old one.
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def bash(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", activate + text], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    if block.language == "sh":
        done = bash(f"set -e\n{block.text}")
        assert done.returncode == 0, done.stdout + done.stderr
        return
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        done = bash(command)
        assert done.stderr == ""
        assert [line for line in shown if line not in done.stdout.splitlines()] == [], done.stdout


def test_the_tutorial_ends_with_the_services_pod(checkout: Path) -> None:
    manifest = checkout / "build" / "dev" / "manifests" / "50-services" / "summary-service.yaml"
    objects = {each["kind"]: each for each in yaml.safe_load_all(manifest.read_text())}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "ghcr.io/voicehelper/summary-service:1.0.0"
    assert container["resources"]["limits"]["memory"] == "128Mi"
    callees = str(objects["NetworkPolicy"]["spec"]["egress"])
    assert "retrieval-service" in callees
    assert "model-adapter" in callees


def test_each_command_of_it_shows_less_than_a_screen() -> None:
    assert max(len(block.text.splitlines()) for block in BLOCKS) < 30
