from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from stack.model.settings import ROOT


def voice(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "stack.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["diff", "prod", "prod"], 0),
        (["diff", "staging", "prod"], 1),
        (["diff", "dev", "prod"], 3),
        (["diff", "prod", "nowhere"], 2),
        (["nothing"], 2),
    ],
    ids=["no difference", "differences", "data at risk", "unknown environment", "unknown command"],
)
def test_the_process_ends_with_the_status_of_its_command(arguments: list[str], status: int) -> None:
    assert voice(*arguments).returncode == status


TOO_LONG = "x" * 300
FULL = "voice: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("graph >/dev/full", 2, FULL),
        ("--version >/dev/full", 2, FULL),
        ("check nowhere 2>/dev/full", 2, ""),
        ("check nowhere 2>&-", 2, ""),
        ("graph >&-", 0, ""),
        (f"check --from {TOO_LONG}", 2, f"voice: {TOO_LONG}: File name too long\n"),
    ],
)
def test_voice_exits_without_a_traceback_if_an_output_or_a_path_fails(command: str, status: int, said: str) -> None:
    line = f"{shlex.quote(sys.executable)} -m stack.cli {command}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


def test_help_loads_neither_pydantic_nor_yaml() -> None:
    helped = voice("--help")
    assert helped.stdout.startswith("usage: voice")
    assert "argparse" in helped.stderr
    assert "pydantic" not in helped.stderr
    assert "yaml" not in helped.stderr


def test_rendering_loads_no_heavy_module_of_another_command(tmp_path_factory: pytest.TempPathFactory) -> None:
    loaded = voice("render", "prod", "-o", str(tmp_path_factory.mktemp("rendered") / "prod")).stderr
    assert "stack.output.render" in loaded
    for heavy in ("pulumi", "jinja2", "urllib.request", "ssl", "stack.deploy.registry", "stack.output.difference"):
        assert f" {heavy}\n" not in loaded
