from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from stack.audit.manifests import audit_manifests
from stack.model.manifests.system import load_system
from stack.output.render import render
from tests.platforms import ENVIRONMENTS, platform


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_rendered_platform_satisfies_every_rule_on_manifests(environment: str, tmp_path: Path) -> None:
    render(platform(environment), tmp_path / "out")
    outcome = audit_manifests(load_system(tmp_path / "out" / "manifests"), on=date(2026, 11, 30))
    assert outcome.judged == ()
    checked = {verdict.rule.id: verdict.checked for verdict in outcome.verdicts}
    assert all(checked[rule] for rule in ("N04", "N06", "E01", "S01", "T05", "T07"))
