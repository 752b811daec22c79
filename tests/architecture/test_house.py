from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from components.kubernetes.__main__ import TYPES, source
from stack.model.profile import ProfileName
from stack.model.settings import ROOT

MAY_IMPORT = {
    "policies/voice_policies": {"pydantic", "pydantic_core", "typing_extensions"},
    "runtime/voice_runtime": {
        *("voice_policies", "pydantic", "pydantic_core", "typing_extensions"),
        *("grpc", "grpc_health", "grpc_reflection", "h11", "httpx", "opentelemetry", "prometheus_client"),  # extras
        *("asyncpg", "redis", "uvicorn"),  # as above
    },
    "runtime/voice_saga": {
        *("voice_policies", "voice_runtime"),
        *("asyncpg", "opentelemetry", "redis", "temporalio"),  # extras
    },
    "runtime/voice_models": {
        *("voice_policies", "voice_runtime", "httpx", "opentelemetry"),
        "prometheus_client",  # an extra
    },
    "runtime/voice_reference": {
        *("voice_policies", "voice_runtime", "pydantic", "pydantic_core", "typing_extensions"),
        *("grpc", "httpx", "openai", "opentelemetry", "prometheus_client", "voice_models"),
    },
    "components": {"voice_policies", "pydantic", "pydantic_core", "typing_extensions"},
    "stack": {"components", "voice_policies", "pydantic", "pydantic_core", "typing_extensions", "yaml", "jinja2"},
}
"""Package → what it may import, besides the package itself and the standard library."""
EXCEPTIONS = {
    "components/kubernetes/__main__.py": {
        "kubernetes_validate",
        "datamodel_code_generator",
    },  # only `make types` runs it
    "components/observability/dashboard_json.py": {"grafana_foundation_sdk"},  # encodes dashboards, imported late
    "stack/deploy/conformance.py": {"grpc"},  # asks a service's gRPC health, imported late
    "stack/deploy/program.py": {"pulumi", "pulumi_kubernetes"},  # the only module that registers resources with Pulumi
    "stack/deploy/secret_values.py": {"cryptography"},  # only `voice secrets` generates certificates
    "stack/__main__.py": {"pulumi"},
    "stack/deploy/main.py": {"pulumi"},
    "stack/deploy/configuration.py": {"pulumi"},
}
PUBLIC = ["stack.voiceassistant", "stack.voiceassistant.catalog"]


def modules(package: str) -> Iterator[Path]:
    return (path for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, in functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return {name.split(".")[0] for name in found}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_permitted_packages(package: str) -> None:
    for path in modules(package):
        relative = str(path.relative_to(ROOT))
        allowed = MAY_IMPORT[package] | EXCEPTIONS.get(relative, set()) | {package.rsplit("/", maxsplit=1)[-1]}
        strangers = imported(path) - allowed - sys.stdlib_module_names
        assert not strangers, f"{relative} imports {sorted(strangers)}"


def test_only_two_modules_contain_the_names_of_profiles() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("components", "policies/voice_policies", "stack")
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in get_args(ProfileName)
    }
    assert found == {"stack/model/profile.py", "stack/voiceassistant/profiles.py"}


def test_kubernetes_types_are_imported_for_checking_only() -> None:
    script = (
        "import sys, stack.model.platform, stack.output.render; print('components.kubernetes.types' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_policies_need_only_pydantic() -> None:
    script = (
        "import sys; before = set(sys.modules); import voice_policies; "
        "print(sorted({n for n in (m.split('.')[0] for m in set(sys.modules) - before) if not n.startswith('_')} "
        "- sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    known = {"voice_policies", "pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert set(ast.literal_eval(done.stdout)) <= known


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_package_lists_exactly_its_public_names_in_all(name: str) -> None:
    module = importlib.import_module(name)
    public = {key for key, value in vars(module).items() if not key.startswith("_") and not is_module(value)}
    assert public - {"annotations"} == set(module.__all__)


def is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def test_the_kubernetes_types_are_current() -> None:
    assert TYPES.read_text() == source(), "run `make types`"


MISSPELT = """
from components.kubernetes.types import Deployment

manifest: Deployment = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a"},
    "spec": {
        "selector": {},
        "template": {"spec": {"containers": [{"name": "a", "imagePullPolcy": "Always"}]}},
    },
}
"""


def test_a_misspelt_kubernetes_field_fails_the_type_check(tmp_path: Path) -> None:
    file = tmp_path / "misspelt.py"

    def mypy(text: str) -> subprocess.CompletedProcess[str]:
        file.write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", str(file)]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    assert 'Extra key "imagePullPolcy"' in mypy(MISSPELT).stdout
    assert mypy(MISSPELT.replace("Polcy", "Policy")).returncode == 0


def test_voice_runtime_requires_the_grpc_version_of_the_tests() -> None:
    """Older versions of `grpc.aio` may fail to close a channel while another channel makes calls."""
    extras = tomllib.loads((ROOT / "runtime/voice_runtime/pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["grpc"]
    locked = dict(re.findall(r"^([a-z-]+)==(\d+\.\d+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE))
    promised = dict(requirement.split(">=") for requirement in extras if requirement.startswith("grpcio"))
    assert promised == {name: locked[name] for name in ("grpcio", "grpcio-health-checking", "grpcio-reflection")}
