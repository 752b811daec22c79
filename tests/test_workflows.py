from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.model.settings import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
OFFICIAL = re.compile(r"actions/[a-z-]+@v\d+")


def jobs(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] in ({}, {"contents": "read"})
    return dict(document["jobs"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_only_official_actions_of_a_named_major_version_are_used(path: Path) -> None:
    used = [step["uses"] for job in jobs(path).values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not OFFICIAL.fullmatch(action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_runs_the_code_of_a_pull_request_with_a_right_to_write(path: Path) -> None:
    for name, job in jobs(path).items():
        runs = any("run" in step or "checkout" in step.get("uses", "") for step in job["steps"])
        assert not (runs and "write" in str(job.get("permissions"))), name


def test_the_review_compares_every_environment_and_fails_where_one_is_refused(tmp_path: Path) -> None:
    """The step is run as the runner would run it, with a command that answers as `voice diff` does."""
    (step,) = [step for step in jobs(ROOT / ".github/workflows/review.yml")["compare"]["steps"] if "id" in step]
    voice = tmp_path / ".venv/bin/voice"
    voice.parent.mkdir(parents=True)
    voice.write_text('#!/bin/sh\necho "$@"\ncase $5 in staging) exit 1;; prod) exit 2;; esac\n', encoding="utf-8")
    voice.chmod(0o755)
    variables = {
        "PATH": "/usr/bin:/bin",
        "REPLACEMENT": "",
        "GITHUB_STEP_SUMMARY": "summary",
        "GITHUB_OUTPUT": "output",
    }
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=variables, check=False, timeout=30)
    assert done.returncode == 1
    output = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    expected = "\n\n".join(
        f"## {name}\n\ndiff --format markdown HEAD^1:{name} {name}" for name in ("dev", "staging", "prod")
    )
    assert (tmp_path / "summary").read_text(encoding="utf-8").strip() == expected
    assert output[0] == f"comment<<{output[-1]}"
    assert "\n".join(output[1:-1]).strip() == expected
