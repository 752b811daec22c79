"""Pulumi's engine, working on a copy of the project whose state, configuration and plugins are its own."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pulumi import automation
from pulumi.automation.events import EngineEvent, OpType

from stack.model.image_lock import ImageLock, images
from stack.model.platform import Platform
from stack.model.settings import ROOT, SECRETS
from tests.cluster import toolchain
from tests.cluster.kubectl import KUBECTL

PROGRAM = ("stack", "components", "runtime")
"""The packages of the Pulumi program, and those that it renders files of."""
PASSPHRASE = "of a state that lives as long as its test"  # noqa: S105 - likewise
Operation = Literal["preview", "up", "refresh", "destroy"]
Secrets = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, order=True)
class Change:
    """A step of the engine on one resource, done or planned: `create`, `update`, `replace` or `delete`."""

    op: str
    urn: str
    paths: tuple[str, ...] = ()
    """The properties that differ."""

    def __str__(self) -> str:
        *_, type_, name = self.urn.split("::")
        return " ".join([self.op, type_.rpartition(":")[2], name, *self.paths])


class Project:
    """A copy of the project. What a test changes in it, the program of every later run is.

    Attributes:
        folder: the copy, where the CLI works.
        environment: the variables that the CLI runs with.
    """

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        home = folder / "home"
        self.folder = folder / "project"
        self.environment = {
            "KUBECONFIG": str(kubeconfig),
            "PATH": os.pathsep.join([str(home / "bin"), str(KUBECTL.parent), os.environ["PATH"]]),
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_HOME": str(home),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # The copy comes before the installed project.
            "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
        }
        _copy_project(self.folder)
        _install(home)
        self._cli = automation.PulumiCommand(root=str(home))

    def pin_images(self, platform: Platform) -> None:
        """Gives every image of a platform an invented digest, as `voice images lock` would a real one."""
        references = {image for component in platform.components for image in images(component.resources())}
        lock = ImageLock(digests=dict.fromkeys(references, f"sha256:{64 * '0'}"))
        lock.write(self.folder / "images.lock.yaml")

    def stack(self, name: str, settings: Mapping[str, str], secrets: Secrets) -> "Stack":
        """Creates a stack that is configured by the project's own file, and by what is given here besides."""
        workspace = automation.LocalWorkspace(
            work_dir=str(self.folder), env_vars=self.environment, pulumi_command=self._cli
        )
        stack = automation.Stack.create(name, workspace)
        plain = {key: automation.ConfigValue(value) for key, value in settings.items()}
        secret = {
            f"secrets.{secret}.{key}": automation.ConfigValue(value, secret=True)
            for secret, values in secrets.items()
            for key, value in values.items()
        }
        stack.set_all_config(plain | secret, path=True)
        return Stack(stack)


class Stack:
    """A stack, whose operations tell what they change."""

    def __init__(self, stack: automation.Stack) -> None:
        self.automation = stack

    def run(self, operation: Operation, **options: Any) -> list[Change]:
        """Runs one of the CLI's operations, and tells what it changed, or would change, in order of the changes.

        Raises:
            automation.CommandError: the operation failed; the message holds what the CLI said.
        """
        events: list[EngineEvent] = []
        getattr(self.automation, operation)(on_event=events.append, **options)
        return sorted(_changes(events))

    def configure(self, key: str, value: str) -> None:
        """Sets one value of the stack's configuration."""
        self.automation.set_config(key, automation.ConfigValue(value), path=True)

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the state, secrets encrypted."""
        deployment = self.automation.export_stack().deployment or {}
        resources: list[dict[str, Any]] = deployment.get("resources", [])
        return resources


def _changes(events: Iterable[EngineEvent]) -> Iterable[Change]:
    for event in events:
        step = event.resource_pre_event and event.resource_pre_event.metadata
        if step and step.op not in {OpType.SAME, OpType.READ, OpType.REFRESH}:
            yield Change(OpType(step.op).value, step.urn, tuple(sorted(step.detailed_diff or step.diffs or ())))


def _copy_project(folder: Path) -> None:
    for name in PROGRAM:
        shutil.copytree(ROOT / name, folder / name)
    for file in (ROOT / "Pulumi.yaml", ROOT / "images.lock.yaml"):
        shutil.copy2(file, folder)
    for file in ROOT.glob("Pulumi.*.yaml"):
        # Without what somebody encrypted there: it belongs to a stack of theirs.
        config = yaml.safe_load(file.read_text())["config"]
        config.pop(SECRETS, None)
        (folder / file.name).write_text(yaml.safe_dump({"config": config}))


def _install(home: Path) -> None:
    """Lays out the CLI and its plugins as an installation does."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    (programs / "pulumi").symlink_to(toolchain.ensure_built(toolchain.PULUMI) / "pulumi")
    plugin = _plugin(home, f"resource-kubernetes-v{importlib.metadata.version('pulumi-kubernetes')}")
    plugin.symlink_to(toolchain.ensure_built(toolchain.PULUMI_KUBERNETES) / plugin.name)
    host = _plugin(home, f"language-python-v{importlib.metadata.version('pulumi')}")
    host.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cluster.engine.language_host "$@"\n')
    host.chmod(0o755)


def _plugin(home: Path, name: str) -> Path:
    """The program of a plugin, in the version that the Python package asks for."""
    folder = home / "plugins" / name
    folder.mkdir(parents=True)
    return folder / f"pulumi-{name.rpartition('-v')[0]}"
