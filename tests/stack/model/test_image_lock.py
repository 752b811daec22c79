from __future__ import annotations

from pathlib import Path

import pytest
from voice_policies import InvalidInputError

from stack.cli import main
from stack.model.environments import load_environment
from stack.model.image_lock import HEADER, UNLOCKED, ImageLock, images, load_lock, registry_and_path
from stack.model.platform import Platform
from stack.model.settings import Choices, Settings, load_settings
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS

DIGEST = f"sha256:{'a' * 64}"
AGENT = "ghcr.io/voicehelper/agent-engine:1.0.0"


def _platform(lock: ImageLock) -> Platform:
    return Platform(TENANT, load_environment("prod", TENANT, images=lock))


def test_an_image_with_a_digest_is_rendered_with_tag_and_digest() -> None:
    platform = _platform(ImageLock(digests={AGENT: DIGEST}))
    found = {image for component in platform.components for image in images(component.resources())}
    assert f"{AGENT}@{DIGEST}" in found
    assert AGENT not in found
    assert "ghcr.io/voicehelper/rag-engine:1.0.0" in found


def test_the_reference_image_is_not_locked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "check"]) == 1
    without = capsys.readouterr().out

    def standing_in(name: str, choices: Choices) -> Settings:
        update = {"reference_image": "localhost:5001/reference:1.0.0"} if name == "dev" else {}
        return load_settings(name, choices).model_copy(update=update)

    monkeypatch.setattr("stack.model.settings.load_settings", standing_in)
    assert main(["images", "check"]) == 1
    assert capsys.readouterr().out == without


def test_a_written_lock_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    lock = ImageLock(digests={"postgres:18.6": DIGEST, AGENT: DIGEST, "localhost:5000/x/y:1": DIGEST})
    lock.write(path)
    assert load_lock(path) == lock
    assert path.read_text(encoding="utf-8").startswith(HEADER)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.lock.yaml"]


def test_a_lock_that_cannot_be_replaced_stays_and_no_temporary_file_remains(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    path.mkdir()
    with pytest.raises(InvalidInputError, match="cannot be written"):
        UNLOCKED.write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.lock.yaml"]


@pytest.mark.parametrize(
    ("repository", "registry", "path"),
    [
        ("postgres", "docker.io", "library/postgres"),
        ("grafana/tempo", "docker.io", "grafana/tempo"),
        ("ghcr.io/voicehelper/agent-engine", "ghcr.io", "voicehelper/agent-engine"),
        ("localhost/reference", "localhost", "reference"),
        ("localhost:5001/reference", "localhost:5001", "reference"),
        ("localhost", "docker.io", "library/localhost"),
    ],
)
def test_the_first_part_of_a_repository_is_its_registry_if_it_is_a_host(
    repository: str, registry: str, path: str
) -> None:
    assert registry_and_path(repository) == (registry, path)


def test_all_faults_of_a_lock_are_reported_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(f"digests:\n  'no tag': {DIGEST}\n  'a/b:1': sha256:12\nversion: 2\n", encoding="utf-8")
    with pytest.raises(InvalidInputError) as raised:
        load_lock(path)
    assert len(raised.value.faults) == 3
    assert raised.value.source == "images.lock.yaml"


def test_a_reference_that_appears_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    path.write_text(f"digests:\n  'a/b:1': {DIGEST}\n  'a/b:1': {DIGEST}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="appears twice"):
        load_lock(path)


def test_a_missing_lock_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        load_lock(tmp_path / "images.lock.yaml")


def test_missing_stale_and_extra_entries_are_reported() -> None:
    lock = ImageLock(digests={"a/kept:1": DIGEST, "a/moved:1": DIGEST, "a/idle:1": DIGEST})
    assert list(lock.differences(["a/kept:1", "a/moved:2"])) == [
        "missing: a/moved:2 has no digest",
        "extra: a/idle:1 is locked, but nothing runs it",
        "stale: a/moved:1 is locked, but the platform runs another tag",
    ]
    assert not list(lock.differences(lock.digests))


def test_images_of_containers_are_found_at_any_depth() -> None:
    pod = {"initContainers": [{"image": "a:1"}], "containers": [{"image": "b:1"}, {"image": "c:1"}]}
    cron_job = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}
    assert set(images([cron_job])) == {"a:1", "b:1", "c:1"}


@pytest.mark.parametrize("pinned", [True, False], ids=["all pinned", "one not pinned"])
def test_check_fails_unless_every_image_is_pinned(
    pinned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platforms = [Platform(TENANT, load_environment(name, TENANT, images=UNLOCKED)) for name in ENVIRONMENTS]
    found = {image for each in platforms for component in each.components for image in images(component.resources())}
    lock = ImageLock(digests=dict.fromkeys(found if pinned else found - {AGENT}, DIGEST))
    monkeypatch.setattr("stack.model.image_lock.load_lock", lambda: lock)
    assert main(["images", "check"]) == (0 if pinned else 1)
    assert capsys.readouterr().out == (
        f"{len(found)} images are pinned by digest\n" if pinned else f"missing: {AGENT} has no digest\n"
    )
