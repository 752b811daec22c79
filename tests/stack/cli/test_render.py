from __future__ import annotations

from pathlib import Path

import pytest
from voice_policies import Cpu

from stack.cli import main, render
from stack.model.environments import environment
from stack.model.platform import Platform
from stack.model.settings import NodePool, load_settings
from stack.voiceassistant import TENANT


def prod_with_nodes(cpu: str) -> Platform:
    settings = load_settings("prod", TENANT)
    pool = NodePool.model_validate({**settings.node_pool.model_dump(), "cpu": Cpu(cpu)})
    return Platform(TENANT, environment(settings.model_copy(update={"node_pool": pool}), TENANT))


@pytest.mark.parametrize(("cpu", "code"), [("1", 1), ("15", 0)], ids=["nodes too small", "nodes large enough"])
def test_render_writes_its_files_and_fails_only_on_an_audit_error(
    cpu: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "platform_of", lambda *_: prod_with_nodes(cpu))
    assert main(["render", "prod", "-o", str(tmp_path / "out")]) == code
    assert ("`voice check prod` explains the findings." in capsys.readouterr().out) is bool(code)
    assert (tmp_path / "out" / "index.json").is_file()
