from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stack.model.settings import ROOT

FILE = "stack/voiceassistant/catalog/knowledge.py"
UNPRINTABLE = """class Unprintable(BaseException):
    def __str__(self):
        raise ValueError


raise Unprintable"""
VALID = """name="summary-service", namespace=APPS, purpose="summaries", language="python", tier="standard",
    grpc_port=9000, http_port=8080, sizing=KNOWLEDGE.sizing, replicas=KNOWLEDGE.replicas, capacity=KNOWLEDGE.capacity"""
PARTS = ("components", "stack", "policies/voice_policies")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for part in PARTS:
        shutil.copytree(ROOT / part, tmp_path / part)
    for file in (*ROOT.glob("Pulumi*.yaml"), ROOT / "images.lock.yaml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(path: Path, before: str, after: str) -> int:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    return text[: text.index(before)].count("\n") + 1


def render(repository: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(repository / part) for part in ("", "policies"))
    command = [sys.executable, "-m", "stack.cli", "render", "prod", "-o", str(repository / "out")]
    return subprocess.run(
        command,
        cwd=repository,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(repository: Path) -> list[str]:
    done = render(repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("hard(", "hrad(", "NameError: name 'hrad' is not defined; did you mean hard? "),
        ("hard(", "hard((", "SyntaxError: "),
        ("from components.", "from componentz.", "ModuleNotFoundError: No module named 'componentz'"),
        ("Replicas(min=", "Replicas(min=1000 + ", "Replicas.min: is "),
        ("Sizing.of(", "Sizing.off(", "AttributeError: "),
        ("KNOWLEDGE =", "raise GeneratorExit('early')\nKNOWLEDGE =", "GeneratorExit: early; "),
        ("KNOWLEDGE =", f"{UNPRINTABLE}\nKNOWLEDGE =", "Unprintable: str() of this error raises ValueError; "),
    ],
)
def test_a_python_error_is_reported_with_its_line(repository: Path, before: str, after: str, said: str) -> None:
    edit(repository / FILE, before, after)
    head, *faults = refused(repository)
    assert head.startswith(f"voice: {FILE}:")
    assert head.endswith("1 fault")
    assert said in faults[0]


@pytest.mark.parametrize(
    ("code", "head", "said"),
    [
        (
            'Sizing.of(cpu="100m", memory=("1Mi", "2Mi"))',
            f"{FILE}:LINE",
            "ValueError: cpu is '100m': expected (request,",
        ),
        ('Sizing.of(cpu=("1", "x"), memory=("1MB", "2Mi"))', f"{FILE}:LINE", "Sizing.cpu_limit: is 'x'; expected"),
        (
            'Sizing.of(cpu=("1", "x"), memory=("1MB", "2Mi"))',
            f"{FILE}:LINE",
            "Sizing.memory_request: is '1MB'; expected",
        ),
        (
            "SERVICES = KNOWLEDGE",
            FILE,
            "SERVICES: is not a tuple of services; expected a tuple of services, as in",
        ),
        ("SERVICES = (SERVICES, KNOWLEDGE)", FILE, "SERVICES: is not a tuple of services; expected a tuple"),
        ("SERVICES = [*SERVICES]", FILE, "SERVICES: is not a tuple of services; expected a tuple"),
        ("del SERVICES", "stack/voiceassistant/catalog/domains.py:", "has no attribute 'SERVICES'"),
        (
            f"SERVICES = (*SERVICES, Service({VALID}, operations=[operation('run', p95='1s', deadline='2s')]))",
            "stack/voiceassistant/catalog: ",
            ": operations: is refused; expected a tuple: write (a, b) in place of [a, b]",
        ),
    ],
)
def test_a_common_mistake_in_a_new_service_is_reported_with_its_file(
    repository: Path, code: str, head: str, said: str
) -> None:
    file = repository / FILE
    text = file.read_text(encoding="utf-8")
    file.write_text(f"{text}{code}\n", encoding="utf-8")
    first, *faults = refused(repository)
    assert first.startswith(f"voice: {head}".replace("LINE", str(text.count("\n") + 1)))
    assert any(said in fault for fault in faults)


def test_an_error_in_the_module_of_another_platform_is_reported_with_its_line(repository: Path) -> None:
    edit(repository / "stack/cli/__init__.py", "stack.voiceassistant", "stack.shop")
    (repository / "stack/shop.py").write_text("TENANT = nothing\n", encoding="utf-8")
    head, fault = refused(repository)
    assert head == "voice: stack/shop.py:1: 1 fault"
    assert "NameError: name 'nothing' is not defined" in fault


def test_sigterm_while_the_catalogue_loads_is_no_fault_of_the_catalogue(repository: Path) -> None:
    edit(repository / FILE, "KNOWLEDGE =", "import os; os.kill(os.getpid(), 15)\nKNOWLEDGE =")
    done = render(repository)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")


def test_faults_of_a_call_and_of_the_settings_are_reported_together(repository: Path) -> None:
    line = edit(repository / FILE, '"idempotent"', '"idempotant", retrys=3')
    edit(repository / "Pulumi.prod.yaml", "profile: prod", "profile: prod\n  voiceassistant:msh: true")
    head, *faults = refused(repository)
    assert head == "voice: Pulumi.prod.yaml and stack/voiceassistant/catalog: 3 faults"
    assert faults[0].startswith("  Pulumi.prod.yaml: config.voiceassistant:msh: is true; not a known key: did you mean")
    for fault, field in zip(faults[1:], ("idempotency", "retrys"), strict=True):
        assert fault.startswith(f"  {FILE}:{line}: knowledge-service.")
        assert f": {field}: is " in fault
        assert "did you mean" in fault


def test_an_error_outside_of_the_catalogue_is_not_reported_as_bad_input(repository: Path) -> None:
    edit(repository / "stack/model/call_graph.py", "class CallGraph:", "raise RuntimeError\n\n\nclass CallGraph:")
    done = render(repository)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError\n")
