"""`voice images`: pins every image by its digest, and checks the pins."""

from __future__ import annotations

import argparse
import sys

from stack.cli.options import Commands, add_command
from stack.cli.status import CLEAN, FINDINGS


def add_to(commands: Commands) -> None:
    """Add the commands."""
    text = "Pin every image by digest."
    images = commands.add_parser("images", help=text, description=text).add_subparsers(required=True, metavar="COMMAND")
    add_command(images, "lock", _lock, "Ask the registries for every digest and write images.lock.yaml.")
    add_command(images, "check", _check, "Compare images.lock.yaml with the platform; exit 1 if they differ.")


def used(options: argparse.Namespace) -> set[str]:
    """The image references of every environment, with tags and without digests."""
    from stack.model.environments import environment  # noqa: PLC0415
    from stack.model.image_lock import UNLOCKED, images  # noqa: PLC0415
    from stack.model.platform import Platform  # noqa: PLC0415
    from stack.model.settings import environments, load_settings  # noqa: PLC0415

    tenant = options.tenant()
    # The lock has the services' own images, not the reference image that replaces them until they exist.
    update = {"reference_image": None}
    settings = [load_settings(name, tenant).model_copy(update=update) for name in environments()]
    platforms = [Platform(tenant, environment(each, tenant, UNLOCKED)) for each in settings]
    return {image for platform in platforms for _, resources in platform.resources for image in images(resources)}


def _lock(options: argparse.Namespace) -> int:
    from stack.deploy.registry import Registry  # noqa: PLC0415
    from stack.deploy.registry_logins import read_logins  # noqa: PLC0415
    from stack.model.image_lock import LOCK, ImageLock  # noqa: PLC0415

    digests = Registry(read_logins()).digests(used(options), lambda line: sys.stderr.write(f"{line}\n"))
    ImageLock(digests=digests).write(LOCK)
    print(f"wrote {LOCK.name}: {len(digests)} images")
    return CLEAN


def _check(options: argparse.Namespace) -> int:
    from stack.model.image_lock import load_lock  # noqa: PLC0415

    references = used(options)
    differences = list(load_lock().differences(references))
    print("\n".join(differences) or f"{len(references)} images are pinned by digest")
    return FINDINGS if differences else CLEAN
