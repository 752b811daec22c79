"""The command line as its users meet it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stack.model.settings import ROOT
from tests.platforms import platform, resources


def voice(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stack.cli", *arguments], check=False, capture_output=True, text=True, cwd=cwd
    )


def test_render_says_what_it_wrote(tmp_path: Path) -> None:
    done = voice("render", "prod", "-o", str(tmp_path / "out"))
    assert done.returncode == 0
    components, rendered = platform("prod").components, resources("prod")
    files = len(list((tmp_path / "out").rglob("*.*")))
    assert done.stdout.startswith(
        f"prod: {len(components)} components, {len(rendered)} resources, {files} files, 0 findings, "
    )
    assert done.stderr == ""


def test_render_defaults_to_build(tmp_path: Path) -> None:
    assert voice("render", "dev", cwd=tmp_path).returncode == 0
    assert (tmp_path / "build" / "dev" / "index.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("render", "production"), "environment: 1 fault\n  ENV: is 'production'; expected one of dev, prod, staging"),
        (("check", "production"), "or a file Pulumi.production.yaml"),
        (("render", "dev", "-o", "/dev/null"), "/dev/null: is a file; name a directory"),
        (("render",), "the following arguments are required: ENV"),
        (("paint",), "invalid choice: 'paint'"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    done = voice(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_check_holds_in_every_environment() -> None:
    done = voice("check", "prod", "--format", "json")
    assert done.returncode == 0
    rules = {rule["rule"]: rule for rule in json.loads(done.stdout)["rules"]}
    assert set(rules) == {"C07", "R01", "R02", "R06", "T01", "T04", "A01", "D01", "D02", "N01", "N02", "N05", "E01"}
    assert all(rule["verdict"] == "holds" and rule["checked"] for rule in rules.values())


def test_graph_is_mermaid_or_json() -> None:
    assert voice("graph").stdout.startswith("flowchart LR\n")
    document = json.loads(voice("graph", "--format", "json").stdout)
    assert len([node for node in document["nodes"] if node["kind"] == "service"]) == 16


def test_help_names_every_command() -> None:
    said = voice("--help").stdout
    assert all(command in said for command in ("render", "check", "graph", "docs", "schema"))


def test_a_reader_that_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stack.cli", "graph"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
