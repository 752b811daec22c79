from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from stack.model.settings import ROOT
from stack.voiceassistant.catalog import SERVICES
from tests.checkout import bash, copied
from tests.documents import Block, blocks

BLOCKS = [block for block in blocks(ROOT / "docs" / "tutorial.md") if not block.not_run]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after every command of the tutorial."""
    if any(service.name == "summary-service" for service in SERVICES):
        pytest.skip("this checkout already declares summary-service: somebody followed the tutorial in it")
    folder = copied(tmp_path_factory.mktemp("checkout"))
    for block in BLOCKS:
        _run_block(block, folder)
    return folder


def _run_block(block: Block, folder: Path) -> None:
    if block.language == "sh":
        done = bash(folder, f"set -e\n{block.text}")
        assert done.returncode == 0, done.stdout + done.stderr
        return
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        done = bash(folder, command)
        assert done.stderr == ""
        printed = [
            each.split() for each in done.stdout.splitlines()
        ]  # the widths of columns vary with the printed times
        assert [line for line in shown if line.split() not in printed] == [], done.stdout


def test_the_tutorial_renders_the_pod_of_the_new_service(checkout: Path) -> None:
    manifest = checkout / "build" / "dev" / "manifests" / "50-services" / "summary-service.yaml"
    objects = {each["kind"]: each for each in yaml.safe_load_all(manifest.read_text())}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "ghcr.io/voicehelper/summary-service:1.0.0"
    assert container["resources"]["limits"]["memory"] == "128Mi"
    callees = str(objects["NetworkPolicy"]["spec"]["egress"])
    assert "retrieval-service" in callees
    assert "model-adapter" in callees


def test_each_block_of_the_tutorial_fits_a_screen() -> None:
    assert max(len(block.text.splitlines()) for block in BLOCKS) < 30
