"""checkov runs from a separate Python environment, because its dependencies conflict with those of the tests."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.model.image_lock import load_lock
from tests.cluster.toolchain import tools_folder
from tests.platforms import platform

pytestmark = pytest.mark.cluster

VERSION = "3.3.30"
ACCEPTED = {
    "CKV_K8S_15": "IfNotPresent suffices: a digest or a release's tag always names the same image "
    "(components/container.py)",
    "CKV_K8S_43": "no digests: images.lock.yaml is empty until `voice images lock` has reached the registries",
}
"""Check → the reason why every container violates it."""
EXEMPT = {
    ("CKV_K8S_23", "DaemonSet.voice-node-agents.fluent-bit"): "run_as_user",
    ("CKV_K8S_40", "DaemonSet.voice-node-agents.fluent-bit"): "run_as_user",
    ("CKV_K8S_35", "Deployment.voice-gateway.gateway"): "secrets_as_files",
    ("CKV_K8S_35", "Deployment.voice-observability.elasticsearch-exporter"): "secrets_as_files",
    ("CKV_K8S_35", "Deployment.voice-observability.valkey-exporter"): "secrets_as_files",
}
"""Check and workload → the rule from which the component is exempt. `voice render -v` shows the reason."""


@pytest.fixture(scope="module")
def checkov() -> Path:
    place = tools_folder() / f"checkov-{VERSION}"
    program = place / "bin" / "checkov"
    if not program.exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", place], check=True)
        packages = ("pip", "install", "--quiet", f"--python={place / 'bin' / 'python'}", f"checkov=={VERSION}")
        if subprocess.run([uv, *packages], check=False).returncode:
            pytest.skip(f"checkov {VERSION} cannot be installed here")
    return program


def test_checkov_finds_only_accepted_and_exempt_violations(
    checkov: Path, rendered: Callable[[str], Path], report: Callable[[str], None]
) -> None:
    arguments = ("--framework=kubernetes", "--skip-download", "--quiet", "--compact", "--output=json")
    scanned = subprocess.run(
        [checkov, f"--directory={rendered('prod')}", *arguments], capture_output=True, text=True, check=False
    )
    failed = json.loads(scanned.stdout)["results"]["failed_checks"]
    accepted = Counter(each["check_id"] for each in failed if each["check_id"] in ACCEPTED)
    unpinned = {} if load_lock().digests else {"CKV_K8S_43"}
    assert accepted.keys() == {"CKV_K8S_15", *unpinned}, "an accepted check finds nothing: remove it from ACCEPTED"
    found = {(each["check_id"], each["resource"]) for each in failed if each["check_id"] not in ACCEPTED}
    assert found == EXEMPT.keys()
    exemptions = {(each.name, one.rule) for each in platform("prod").components for one in each.exemptions}
    for (_, workload), rule in EXEMPT.items():
        assert (workload.rpartition(".")[2], rule) in exemptions
    report(f"checkov: 0 findings beyond {len(ACCEPTED)} accepted checks and {len(EXEMPT)} exemptions")
