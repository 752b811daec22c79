"""`images.lock.yaml`: the digest of every image, so that nodes pull exactly the reviewed images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ValidationError
from voice_policies import ClosedModel, Fault, InvalidInputError, TextPattern, faults_of

from stack.model.manifest_yaml import documents
from stack.model.settings import ROOT
from stack.model.strict_yaml import read_yaml

__all__ = ["DOCKER_HUB", "LOCK", "UNLOCKED", "ImageLock", "images", "load_lock", "registry_and_path"]

DOCKER_HUB = "docker.io"
"""Registry of references without a host."""
LOCK = ROOT / "images.lock.yaml"
HEADER = """\
# The digest that each image's tag had when `voice images lock` asked its registry. Never written by hand.
# Empty until that command has reached a registry. An image that is missing here renders by its tag alone:
# `voice render` says so, and a deployment of prod refuses it.
"""
Reference = Annotated[
    str,
    TextPattern(
        r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", "registry.example.com/image:1.0"
    ),
]
"""`repository:tag`, as a manifest names an image."""
Digest = Annotated[str, TextPattern(r"^sha256:[0-9a-f]{64}$", "sha256: and 64 hex digits")]


class ImageLock(ClosedModel):
    """Digests by reference."""

    digests: dict[Reference, Digest]

    def pinned(self, reference: str) -> str:
        """`repository:tag@digest`, or the reference alone if the lock has no digest."""
        digest = self.digests.get(reference)
        return f"{reference}@{digest}" if digest else reference

    def differences(self, references: Iterable[str]) -> Iterator[str]:
        """The differences between the lock and `references`, one line each."""
        wanted = set(references)
        repositories = {_repository(reference) for reference in wanted}
        for reference in sorted(wanted - self.digests.keys()):
            yield f"missing: {reference} has no digest"
        for reference in sorted(self.digests.keys() - wanted):
            if _repository(reference) in repositories:
                yield f"stale: {reference} is locked, and the platform runs another tag"
            else:
                yield f"extra: {reference} is locked, and nothing runs it"

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises `InvalidInputError` if it cannot be written."""
        beside = path.with_name(f".{path.name}.new")
        text = HEADER + documents([{"digests": dict(sorted(self.digests.items()))}])
        try:
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, path)  # noqa: PTH105 - as atomic as it gets
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InvalidInputError(path.name, [Fault("", "cannot be written", error.strerror or str(error))]) from None


UNLOCKED = ImageLock(digests={})
"""A lock without digests: every image by its tag."""


def load_lock(path: Path = LOCK) -> ImageLock:
    """The committed lock; raises `InvalidInputError` with every fault of its file."""
    try:
        return ImageLock.model_validate(read_yaml(path))
    except ValidationError as error:
        raise InvalidInputError(path.name, faults_of(error, ImageLock)) from None


def images(resources: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The image of every container that `resources` describe."""
    for resource in resources:
        yield from _container_images(resource.get("spec"))


def _container_images(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _container_images(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in {"containers", "initContainers"} and isinstance(item, list):
                yield from (container["image"] for container in item)
            elif key == "imageName":
                yield item
            else:
                yield from _container_images(item)


def registry_and_path(repository: str) -> tuple[str, str]:
    """The registry of a repository and its full path there; without a host it is Docker Hub's, as everywhere."""
    host, slash, path = repository.partition("/")
    if slash and ("." in host or ":" in host):
        return host, path
    return DOCKER_HUB, repository if slash else f"library/{repository}"


def mirrored(reference: str, mirrors: Mapping[str, str]) -> str:
    """The reference in the mirror of its registry. Unchanged if the registry has no mirror."""
    registry, path = registry_and_path(reference)
    return f"{mirrors[registry]}/{path}" if registry in mirrors else reference


def _repository(reference: str) -> str:
    return reference.rpartition(":")[0]
