"""The checks of the image that need no container engine."""

from __future__ import annotations

import re
from pathlib import Path

from components.container import USER

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "runtime" / "voice_reference" / "Dockerfile").read_text()
STAGES = DOCKERFILE.split("\nFROM ")[1:]


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_its_lock_agrees_with_the_projects() -> None:
    ours, image = pins("requirements-dev.lock"), pins("runtime/voice_reference/requirements.lock")
    assert image
    assert {name: version for name, version in image.items() if ours.get(name) != version} == {}


def test_the_last_stage_has_no_root_and_nothing_to_build_with() -> None:
    build, last = STAGES
    assert "pip install --no-cache-dir --require-hashes" in build
    assert f"USER {USER}:{USER}" in last
    assert not re.search(r"\bpip\b|gcc|build-essential|python3-(dev|pip|venv)", last.partition("\n")[2])
    assert "-m voice_reference" in " ".join(re.findall(r'"([^"]+)"', last))


def test_the_copied_files_exist() -> None:
    copied = re.findall(r"^COPY ([^-]\S*) ", DOCKERFILE, re.MULTILINE)
    assert copied == [
        "runtime/voice_reference/requirements.lock",
        "policies/voice_policies",
        "runtime/voice_models/voice_models",
        "runtime/voice_runtime/voice_runtime",
        "runtime/voice_reference/voice_reference",
    ]
    assert all((ROOT / path).exists() for path in copied)
