import json
import subprocess
from pathlib import Path

import pytest

from components.observability.alertmanager import Alertmanager
from components.observability.prometheus import Prometheus
from stack.voiceassistant.catalog import TEAM_SERVICES
from stack.voiceassistant.platform_team import PLATFORM_TEAM
from tests.cluster.misspelling import keys_of, misspelt
from tests.platforms import ENVIRONMENTS, platform

pytestmark = pytest.mark.cluster


def written(environment: str, folder: Path) -> Path:
    (component,) = (each for each in platform(environment).components if isinstance(each, Alertmanager))
    (text,) = component.files.values()
    file = folder / "alertmanager.json"
    file.write_text(text)
    return file


def check(amtool: Path, file: Path) -> int:
    return subprocess.run([amtool, "check-config", file], capture_output=True, check=False, timeout=60).returncode


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_amtool_accepts_the_configuration(environment: str, amtool: Path, tmp_path: Path) -> None:
    assert check(amtool, written(environment, tmp_path)) == 0


def test_each_key_is_refused_when_it_is_misspelt(amtool: Path, tmp_path: Path) -> None:
    file = written("prod", tmp_path)
    document = json.loads(file.read_text())
    accepted = []
    for path in keys_of(document):
        file.write_text(json.dumps(misspelt(document, path)))
        if check(amtool, file) == 0:
            accepted.append(path)
    assert accepted == []


def receivers_of(amtool: Path, file: Path, **labels: str) -> str:
    words = [f"{name}={value}" for name, value in labels.items()]
    command = [str(amtool), "config", "routes", "test", f"--config.file={file}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.parametrize("team", [PLATFORM_TEAM, *TEAM_SERVICES])
def test_a_team_gets_its_alerts_and_the_person_on_call_gets_critical_alerts(
    team: str, amtool: Path, tmp_path: Path
) -> None:
    file = written("prod", tmp_path)
    assert receivers_of(amtool, file, team=team, severity="warning") == team
    assert receivers_of(amtool, file, team=team, severity="critical") == f"on-call,{team}"


def test_alerts_without_a_team_go_to_the_platform_team_and_dev_sends_no_alerts(amtool: Path, tmp_path: Path) -> None:
    assert receivers_of(amtool, written("prod", tmp_path), severity="warning") == PLATFORM_TEAM
    assert receivers_of(amtool, written("dev", tmp_path), severity="critical", team="platform") == "nobody"


def test_every_team_receives_its_alerts_of_every_severity(amtool: Path, tmp_path: Path) -> None:
    (prometheus,) = (each for each in platform("prod").components if isinstance(each, Prometheus))
    rules = [rule for group in prometheus.groups for rule in group.rules]
    labels = [rule.document("").get("labels", {}) for rule in rules]
    pairs = {(each["team"], each["severity"]) for each in labels if "team" in each}
    # A warning may take its label `team` from a series, so every team needs a receiver of warnings.
    pairs |= {(team, "warning") for team, _ in pairs}
    file = written("prod", tmp_path)
    for team, severity in sorted(pairs):
        assert team in receivers_of(amtool, file, team=team, severity=severity).split(",")
