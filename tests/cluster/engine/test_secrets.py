import json
import subprocess
import sys
from pathlib import Path

import pytest

from stack.model.settings import CHANGED, SECRETS
from tests.cluster import toolchain
from tests.cluster.build_or_skip import build_or_skip
from tests.cluster.engine.engine import Project
from tests.cluster.engine.subjects import VOICEASSISTANT
from tests.stack.deploy.program_run import configured, run_program

pytestmark = pytest.mark.engine


def test_pulumi_encrypts_every_secret_that_the_program_needs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_or_skip(request, toolchain.PULUMI)
    build_or_skip(request, toolchain.PULUMI_KUBERNETES)
    project = Project(tmp_path, tmp_path / "kubeconfig")
    VOICEASSISTANT.lay_out(project.folder)
    project.stack("dev", {}, {})

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=project.folder, env=project.environment, check=True, capture_output=True, text=True
        ).stdout

    said = run(sys.executable, "-m", "stack.cli", "secrets", "dev")
    shown = json.loads(run("pulumi", "config", "--stack", "dev", "--show-secrets", "--json"))
    values = shown[SECRETS]["objectValue"]
    assert shown[SECRETS]["secret"]
    written = (project.folder / "Pulumi.dev.yaml").read_text()
    for value in (value for keys in values.values() for value in keys.values()):
        assert value not in said
        assert value not in written
    config = {**configured("dev"), CHANGED: shown[CHANGED]["objectValue"], SECRETS: values}
    run_program("dev", config, monkeypatch)
    assert (
        run(sys.executable, "-m", "stack.cli", "secrets", "dev", "--check") == "dev: no secret is missing or unused\n"
    )
