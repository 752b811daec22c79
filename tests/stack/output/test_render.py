from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from voice_policies import InvalidInputError

from components.node import Replicas
from stack.model.environments import Environment, environment
from stack.model.platform import Platform
from stack.model.settings import load_settings
from stack.output.render import Index, render, rendered_files
from stack.output.tree import INDEX, LEDGER
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, of_kind, platform


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def files(looked_at: Platform) -> dict[str, str]:
    return dict(rendered_files(looked_at, Index(looked_at.environment.name)))


def with_replicas(name: str, replicas: Replicas) -> Environment:
    changed = load_settings("prod", TENANT).model_copy(update={"replicas": {name: replicas}})
    return environment(changed, TENANT)


def test_two_processes_render_the_same_bytes(tmp_path: Path) -> None:
    for number in ("0", "1"):
        place = tmp_path / number
        place.mkdir()
        command = [sys.executable, "-m", "stack.cli", "render", *ENVIRONMENTS]
        variables = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run(command, check=True, capture_output=True, cwd=place, env=variables)
    assert tree(tmp_path / "0") == tree(tmp_path / "1")
    for name in ENVIRONMENTS:
        policies = [found for found in of_kind(name, "ConfigMap") if found["metadata"]["name"].endswith("-policy")]
        mounted = sum(len(found["data"]) for found in policies)
        files = len(platform(name).components) + mounted + len((INDEX, LEDGER))
        assert len(tree(tmp_path / "0" / "build" / name)) == files


def test_a_changed_replica_count_changes_only_the_files_that_depend_on_the_count() -> None:
    before = files(platform("prod"))
    after = files(Platform(TENANT, with_replicas("agent-engine", Replicas(min=4, max=10))))
    changed = [path for path in before if before[path] != after[path]]
    # The service's policy contains each replica's share of a distributed limit while Redis is down. Prometheus's rules
    # contain the digest of the policy.
    assert changed == [
        "manifests/30-observability/prometheus.yaml",
        "manifests/50-services/agent-engine.yaml",
        "policies/agent-engine/policy.json",
        LEDGER,
    ]
    after = files(Platform(TENANT, with_replicas("rag-engine", Replicas(min=4, max=15))))
    assert [path for path in before if before[path] != after[path]] == [
        "manifests/50-services/rag-engine.yaml",
        LEDGER,
    ]


def test_rendering_loads_no_pulumi_and_opens_no_socket(tmp_path: Path) -> None:
    script = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(event) if event.startswith("socket.") else None)
from stack.cli import main
assert main(["render", "prod", "-o", sys.argv[1]]) == 0
print(sorted({"pulumi", "pulumi_kubernetes", "kubernetes", "jinja2"} & set(sys.modules)), opened)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] []"


def test_every_resource_is_in_the_index(tmp_path: Path) -> None:
    written = render(platform("prod"), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert len(index["resources"]) == len(written.entries)
    for entry in index["resources"]:
        assert f"name: {entry['name']}\n" in (tmp_path / "out" / entry["file"]).read_text()


@pytest.mark.parametrize("out", ["/proc/nowhere/out", "/dev/null/out", "/dev/null"])
def test_an_unwritable_directory_is_one_clear_error(out: str) -> None:
    with pytest.raises(InvalidInputError, match="-o DIR: 1 fault"):
        render(platform("dev"), Path(out))
