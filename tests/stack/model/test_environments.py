from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stack.audit import audit_outcome
from stack.model.platform import Platform
from stack.model.settings import ROOT, environments
from stack.voiceassistant import TENANT
from tests.platforms import DAY, ENVIRONMENTS, VARIANT_FILES, VARIANTS, platform, real_environment
from tests.small import service


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "stack", root / "stack")
    (root / "runtime").symlink_to(ROOT / "runtime")
    for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
        shutil.copy(file, root)
    shutil.copy(VARIANT_FILES / "Pulumi.qa.yaml", root)
    return root


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(ROOT)))}
    return subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, check=False, timeout=300)


ANSWERS = {
    "voice render qa": (0, "qa "),
    "voice check qa": (0, "rules hold"),
    "voice diff staging qa": (1, "data[settings.json].environment: staging -> qa"),
}


def test_a_settings_file_adds_an_environment_as_the_document_shows(tree: Path) -> None:
    document = (ROOT / "docs/environments.md").read_text(encoding="utf-8")
    assert f"```yaml\n{(VARIANT_FILES / 'Pulumi.qa.yaml').read_text(encoding='utf-8')}```" in document
    (block,) = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    assert block.splitlines() == [*ANSWERS]
    for command, (status, said) in ANSWERS.items():
        done = run(tree, sys.executable, "-m", "stack.cli", *command.split()[1:])
        assert done.returncode == status, done.stderr
        assert said in done.stdout


def test_an_environment_without_a_file_is_refused(tree: Path) -> None:
    done = run(tree, sys.executable, "-m", "stack.cli", "render", "qa2")
    assert done.returncode == 2
    assert "expected one of dev, prod, qa, staging, or a file Pulumi.qa2.yaml" in done.stderr


def test_diff_finds_a_new_environment_equal_to_its_rendered_tree(tree: Path) -> None:
    assert run(tree, sys.executable, "-m", "stack.cli", "render", "qa", "-o", "rendered").returncode == 0
    done = run(tree, sys.executable, "-m", "stack.cli", "diff", "qa", "rendered")
    assert (done.returncode, "no differences" in done.stdout) == (0, True), done.stderr


def test_render_without_a_name_renders_every_environment(tree: Path) -> None:
    done = run(tree, sys.executable, "-m", "stack.cli", "render")
    written = {path.parent.name for path in (tree / "build").glob("*/index.json")}
    assert (done.returncode, written) == (0, {"dev", "prod", "qa", "staging"}), done.stderr


def test_the_tests_cover_all_deployed_environments() -> None:
    assert environments() == tuple(sorted(ENVIRONMENTS))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_renders_and_satisfies_the_audit(name: str) -> None:
    found = platform(name)
    outcome = audit_outcome(found, on=DAY)
    assert (outcome.open, outcome.unused) == ((), ())
    assert {component.name for component in found.components} >= {node.name for node in found.graph.services}


def test_an_environment_may_have_the_longest_name() -> None:
    real = real_environment("prod")
    named = real.settings.model_copy(update={"environment": "e" * 40})
    assert Platform(TENANT, real.model_copy(update={"settings": named})).components


@pytest.mark.parametrize(("name", "replicas"), [("dev", (1, 1)), ("qa", (2, 6)), ("prod-eu", (3, 13))])
def test_a_profile_decides_how_many_replicas_of_a_service_run(name: str, replicas: tuple[int, int]) -> None:
    declared = service("a", replicas={"min": 3, "max": 13})
    found = real_environment(name).replicas(declared)
    assert (found.min, found.max) == replicas
