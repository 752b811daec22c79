from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.cli import main
from stack.model.environments import load_environment
from stack.model.platform import Platform
from stack.model.settings import ROOT, SECRETS
from stack.model.tenant import Tenant
from tests.cluster.manifests import identity
from tests.stack.deploy.program_run import configured, run_program

(BLOCK,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "another-platform.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def tenant() -> Tenant:
    names: dict[str, Any] = {}
    exec(BLOCK, names)  # noqa: S102  # our own document
    found: Tenant = names["TENANT"]
    return found


def test_the_platform_is_declared_in_under_40_lines() -> None:
    lines = BLOCK.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 130


def test_voice_render_writes_the_platform(tenant: Tenant, tmp_path: Path) -> None:
    assert main(["render", "dev", "-o", str(tmp_path / "dev")], lambda: tenant) == 0
    rendered = {path.name: path.read_text() for path in (tmp_path / "dev").rglob("*.yaml")}
    assert {"offers.yaml", "rates.yaml", "shop.yaml"} <= rendered.keys()
    assert "voice-apps" not in "".join(rendered.values())
    (policy,) = [each for each in yaml.safe_load_all(rendered["rates.yaml"]) if each["kind"] == "NetworkPolicy"]
    callers = [peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]]
    assert {"app.kubernetes.io/name": "offers"} in callers


def test_the_audit_finds_nothing(tenant: Tenant, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["check", "dev"], lambda: tenant)
    assert (status, capsys.readouterr().err) == (0, "")


def test_the_program_registers_every_rendered_resource(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.voiceassistant.TENANT", tenant)
    platform = Platform(tenant, load_environment("dev", tenant))
    secrets = {secret.name: dict.fromkeys(secret.keys, "a value") for secret in platform.secrets}
    run = run_program("dev", {**configured("dev"), SECRETS: secrets}, monkeypatch)
    registered = {found.name for found in run.kubernetes if not found.type.endswith(":Secret")}
    resources = [dict(each) for component in platform.components for each in component.resources()]
    assert registered == {identity(each).split()[1].removeprefix("/") for each in resources}
    assert {"shop/offers", "shop/rates"} <= registered
