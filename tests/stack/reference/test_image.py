"""Checks of the reference service's image that need no container engine."""

from __future__ import annotations

import re
from pathlib import Path

from components.container import USER

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "runtime" / "voice_reference" / "Dockerfile").read_text()
STAGES = DOCKERFILE.split("\nFROM ")[1:]


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_lock_of_the_image_pins_the_versions_of_the_project() -> None:
    ours, image = pins("requirements-dev.lock"), pins("runtime/voice_reference/requirements.lock")
    assert image
    assert {name: version for name, version in image.items() if ours.get(name) != version} == {}


def test_the_last_stage_runs_without_root_and_without_build_tools() -> None:
    build, last = STAGES
    assert "pip install --no-cache-dir --require-hashes" in build
    assert f"USER {USER}:{USER}" in last
    assert not re.search(r"\bpip\b|gcc|build-essential|python3-(dev|pip|venv)", last.partition("\n")[2])
    assert "-m voice_reference" in " ".join(re.findall(r'"([^"]+)"', last))


def test_the_image_copies_only_its_lock_and_its_packages() -> None:
    copied = re.findall(r"^COPY ([^-]\S*) ", DOCKERFILE, re.MULTILINE)
    assert copied == [
        "runtime/voice_reference/requirements.lock",
        "policies/voice_policies",
        "runtime/voice_models/voice_models",
        "runtime/voice_runtime/voice_runtime",
        "runtime/voice_reference/voice_reference",
    ]
    assert all((ROOT / path).exists() for path in copied)
