from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.render.chart import write_chart
from bench.render.equal import kinds
from bench.render.generated import services
from stack.model.settings import ROOT
from stack.output.render import render
from stack.voiceassistant import catalog
from tests.platforms import platform

COPY = len(catalog.SERVICES)


def test_one_copy_equals_the_catalogue() -> None:
    assert tuple(services(COPY)) == catalog.SERVICES


def test_the_services_of_a_copy_call_each_other_and_the_shared_dependencies() -> None:
    made = {service.name: service for service in services(2 * COPY)}
    own = {service.name for service in catalog.SERVICES}
    assert set(made) == own | {f"{name}-1" for name in own}
    called = {call.callee for operation in made["agent-engine-1"].operations for call in operation.calls}
    assert "model-adapter-1" in called
    assert "postgresql" in called
    assert not called & own


def test_a_number_of_services_that_is_no_multiple_of_the_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match=f"a multiple of {COPY}"):
        list(services(COPY + 1))


def test_the_command_renders_and_audits_the_given_number_of_services(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.render.generated", str(2 * COPY), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, "findings are errors, so the command fails"
    name, components, _resources, _files, findings, *_ = done.stdout.splitlines()[1].split()
    assert (name, int(components)) == ("prod", 2 * COPY + 2), "services, guard and priority classes"
    assert int(findings) > 0, "twice the services exceed the shared quota"
    assert kinds(tmp_path / "out")["Deployment"] == 2 * COPY


def test_the_objects_in_a_stdout_file_are_counted_by_kind(tmp_path: Path) -> None:
    (tmp_path / "helm-3.22.stdout").write_text("kind: Service\n---\nkind: Deployment\n---\nkind: Service\n")
    assert kinds(tmp_path / "helm-3.22") == {"Service": 2, "Deployment": 1}


def test_the_work_grows_with_the_services_and_not_with_their_square(tmp_path: Path) -> None:
    """The test counts function calls, which do not depend on the machine.

    Only the calls that sort the paths grow faster than the number of services. They add 0.1% here.
    """
    few, more, many = (_calls(count, tmp_path / str(count)) for count in (COPY, 5 * COPY, 20 * COPY))
    assert (many - more) / 15 < 1.02 * (more - few) / 4


def _calls(services: int, out: Path) -> int:
    command = [sys.executable, "-m", "cProfile", "-m", "bench.render.generated", str(services), "-o", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    (found,) = re.findall(r"\((\d+) primitive calls\)", done.stdout)
    return int(found)


def test_the_chart_has_every_policy_file_as_it_is_rendered(tmp_path: Path) -> None:
    render(platform("prod"), tmp_path / "tree")
    write_chart(tmp_path / "tree", tmp_path / "chart")
    policies = {path.relative_to(tmp_path / "tree/policies"): path for path in tmp_path.glob("tree/policies/*/*")}
    assert len(policies) > len(catalog.SERVICES), "a Go service has two policy files"
    for path, file in policies.items():
        chart = tmp_path / "chart/files" / path.parent / "configmap-policy" / path.name
        assert chart.read_text() == file.read_text()
