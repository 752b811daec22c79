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
NAMES = ("-c", "user.name=Test", "-c", "user.email=test@example.com")


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
def test_no_job_with_write_permission_runs_the_code_of_a_pull_request(path: Path) -> None:
    for name, job in jobs(path).items():
        runs = any("run" in step or "checkout" in step.get("uses", "") for step in job["steps"])
        assert not (runs and "write" in str(job.get("permissions"))), name


def run_step(job: str, command: str, answers: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the step that writes a comment, as GitHub's runner does. The script `answers` stands in for `command`."""
    (step,) = [step for step in jobs(ROOT / ".github/workflows/review.yml")[job]["steps"] if "id" in step]
    program = folder / command
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{answers}\n", encoding="utf-8")
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "GITHUB_STEP_SUMMARY": "summary",
        "GITHUB_OUTPUT": "output",
        **variables,
    }
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=folder, env=environment, check=False, timeout=300, text=True
    )


def commented(folder: Path) -> str:
    """The comment that the step outputs. The summary of the run must have the same text."""
    first, *text, last = (folder / "output").read_text(encoding="utf-8").splitlines()
    assert first == f"comment<<{last}"
    assert (folder / "summary").read_text(encoding="utf-8").strip() == "\n".join(text).strip()
    return "\n".join(text).strip()


def test_the_review_compares_every_environment_and_fails_if_voice_refuses_one(tmp_path: Path) -> None:
    before = ("dev", "prod", "staging")
    repository(tmp_path, *before)
    (tmp_path / "Pulumi.qa.yaml").touch()
    answers = 'echo "$@"; case $5 in staging) exit 1;; prod) exit 2;; esac'
    done = run_step("compare", ".venv/bin/voice", answers, tmp_path, REPLACEMENT="")
    assert done.returncode == 1
    compared = {name: f"diff --format markdown HEAD^1:{name} {name}" for name in before}
    new = {"qa": "This environment is new. Its audit:\n\ncheck --format markdown qa"}
    assert commented(tmp_path) == "\n\n".join(
        f"## {name}\n\n{said}" for name, said in sorted({**compared, **new}.items())
    )


def test_the_review_names_each_environment_that_a_pull_request_removes(tmp_path: Path) -> None:
    repository(tmp_path, "dev", "qa")
    (tmp_path / "Pulumi.qa.yaml").unlink()
    subprocess.run(["git", *NAMES, "commit", "--quiet", "--all", "-m", "b"], cwd=tmp_path, check=True, timeout=300)
    assert run_step("compare", ".venv/bin/voice", "echo compared", tmp_path, REPLACEMENT="").returncode == 0
    text = "This pull request removes the environment, but not its stack: see “Destroy” in docs/deploy.md."
    assert commented(tmp_path) == f"## dev\n\ncompared\n\n## qa\n\n{text}"


def test_a_shortened_comment_keeps_every_blast_radius_without_the_fields(tmp_path: Path) -> None:
    repository(tmp_path, "dev", "prod")
    fields = "<details><summary>~ a</summary>\n\n~~~~diff\n$(head -c 40000 /dev/zero | tr '\\0' x)\n~~~~\n\n</details>"
    answers = f'printf "%s\\n" "**Blast radius** of $5" "" "{fields}"'
    assert run_step("compare", ".venv/bin/voice", answers, tmp_path, REPLACEMENT="").returncode == 0
    text = (tmp_path / "output").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**Blast radius** of dev",
        "**Blast radius** of prod",
    ]
    assert "details" not in text
    assert "The summary of the workflow run lists them." in text
    assert (tmp_path / "summary").read_text(encoding="utf-8").count("<details>") == 2


def repository(folder: Path, *environments: str) -> None:
    """Make a repository of two commits. The first one has the files of these environments."""
    for name in environments:
        (folder / f"Pulumi.{name}.yaml").touch()
    for command in (["init", "--quiet"], ["add", "."], *2 * [["commit", "--quiet", "--allow-empty", "-m", "a"]]):
        subprocess.run(["git", *NAMES, *command], cwd=folder, check=True, timeout=300)


def test_the_review_previews_every_stack_and_fails_if_a_preview_fails(tmp_path: Path) -> None:
    answers = 'echo "$@"; [ "$3" != staging ]'
    done = run_step("preview", "bin/pulumi", answers, tmp_path, STACKS="staging prod")
    assert done.returncode == 1
    assert commented(tmp_path) == "\n\n".join(
        f"## pulumi preview of {name}\n\n```diff\npreview --stack {name} --diff --non-interactive --color never\n```"
        for name in ("staging", "prod")
    )


@pytest.mark.parametrize(("job", "command"), [("preview", "bin/pulumi"), ("compare", ".venv/bin/voice")])
def test_a_comment_that_is_too_long_ends_after_a_whole_line(tmp_path: Path, job: str, command: str) -> None:
    repository(tmp_path, "prod")
    line = 1001 * "é"
    done = run_step(job, command, f"for i in $(seq 40); do echo {line}; done", tmp_path, STACKS="prod", REPLACEMENT="")
    assert done.returncode == 0
    text = (tmp_path / "output").read_text(encoding="utf-8")
    assert {each for each in text.splitlines() if "é" in each} == {line}
    assert text.count(line) == 29, "29 lines have 58,087 bytes, 30 would exceed 60,000"
    assert text.count("```") in {0, 2}
    assert "The summary of the workflow run" in text
    assert (tmp_path / "summary").read_text(encoding="utf-8").count(line) == 40


def test_a_preview_ignores_forks_and_waits_for_a_reviewer() -> None:
    job = jobs(ROOT / ".github/workflows/review.yml")["preview"]
    assert "vars.PULUMI_STACKS && github.event.pull_request.head.repo.full_name == github.repository" in job["if"]
    assert job["environment"] == "preview"
