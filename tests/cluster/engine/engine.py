"""Runs Pulumi's engine on a copy of the project. The copy has its own state, configuration and plugins."""

import gzip
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pulumi import automation
from pulumi.automation.events import EngineEvent, OpType

from stack.model.settings import ROOT
from tests.cluster import toolchain
from tests.cluster.kubectl import KUBECTL

PASSPHRASE = "of a state that lives as long as its test"  # noqa: S105 - it protects only the state of a test
Operation = Literal["preview", "up", "refresh", "destroy"]
Secrets = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, order=True)
class Change:
    """A step of the engine on one resource, executed or planned. `op` is the kind of step, such as `create`."""

    op: str
    urn: str
    paths: tuple[str, ...] = ()
    """The properties that differ."""

    def __str__(self) -> str:
        *_, type_, name = self.urn.split("::")
        return " ".join([self.op, type_.rpartition(":")[2], name, *self.paths])


class Project:
    """A copy of a project. If a test changes the copy, every later run uses the changed program.

    Attributes:
        folder: the copy, which is the CLI's working directory.
        state: the folder with the states of the stacks, and the histories and backups of these states.
        environment: the environment variables of the CLI.
    """

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        home = folder / "home"
        self.folder = folder / "project"
        self.folder.mkdir()
        self.state = folder / ".pulumi"
        self.environment = {
            "KUBECONFIG": str(kubeconfig),
            "PATH": os.pathsep.join([str(home / "bin"), str(KUBECTL.parent), os.environ["PATH"]]),
            "PULUMI_BACKEND_URL": f"file://{folder}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_HOME": str(home),
            "PULUMI_SELF_MANAGED_STATE_GZIP": "true",
            "PULUMI_SKIP_CONFIRMATIONS": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # Python finds the modules of the copy before those of the project.
            "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
        }
        _install(home)
        self._cli = automation.PulumiCommand(root=str(home))

    def text(self, pattern: str) -> str:
        """The text of all files below the folder `state` whose path matches a pattern."""
        files = sorted(file for file in self.state.rglob(pattern) if file.is_file())
        contents = ((file, file.read_bytes()) for file in files)
        return "".join((gzip.decompress(each) if ".gz" in file.suffixes else each).decode() for file, each in contents)

    def stack(self, name: str, settings: Mapping[str, str], secrets: Secrets) -> "Stack":
        """Creates a stack with the project's own configuration, and adds `settings` and `secrets`."""
        workspace = automation.LocalWorkspace(
            work_dir=str(self.folder), env_vars=self.environment, pulumi_command=self._cli
        )
        stack = Stack(automation.Stack.create(name, workspace))
        stack.configure(settings, secrets)
        return stack

    def run(self, script: str) -> str:
        """Runs a bash script in the project's folder, and returns its output.

        Raises:
            CommandFailedError: a command failed. The message contains the output.
        """
        with self.begin(script) as process:
            printed, _ = process.communicate()
        if process.returncode:
            message = f"{script}\nended with {process.returncode}:\n{printed}"
            raise CommandFailedError(message)
        return printed

    @contextmanager
    def begin(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """Starts commands in a new session, and kills the session's remaining processes at the end.

        The engine starts each plugin in a new process group, so a plugin survives when the engine is killed.
        """
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                _kill_session(process.pid)

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))


class CommandFailedError(RuntimeError):
    pass


class Stack:
    def __init__(self, stack: automation.Stack) -> None:
        self.automation = stack

    def run(self, operation: Operation, **options: Any) -> list[Change]:
        """Runs an operation of the CLI. Returns the changes that the operation executed or planned, sorted.

        Raises:
            automation.CommandError: the operation failed. The message contains the CLI's output.
        """
        events: list[EngineEvent] = []
        getattr(self.automation, operation)(on_event=events.append, **options)
        return sorted(_changes(events))

    def configure(self, settings: Mapping[str, str], secrets: Secrets | None = None) -> None:
        plain = {key: automation.ConfigValue(value) for key, value in settings.items()}
        encrypted = {
            f"secrets.{secret}.{key}": automation.ConfigValue(value, secret=True)
            for secret, values in (secrets or {}).items()
            for key, value in values.items()
        }
        self.automation.set_all_config(plain | encrypted, path=True)

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the state. Their secrets are encrypted."""
        deployment = self.automation.export_stack().deployment or {}
        resources: list[dict[str, Any]] = deployment.get("resources", [])
        return resources


def _kill_session(session: int) -> None:
    for process in (int(each.name) for each in Path("/proc").glob("[0-9]*")):
        with suppress(ProcessLookupError):
            if os.getsid(process) == session:
                os.kill(process, signal.SIGKILL)


def _changes(events: Iterable[EngineEvent]) -> Iterable[Change]:
    for event in events:
        step = event.resource_pre_event and event.resource_pre_event.metadata
        if step and step.op not in {OpType.SAME, OpType.READ, OpType.REFRESH}:
            yield Change(OpType(step.op).value, step.urn, tuple(sorted(step.detailed_diff or step.diffs or ())))


def _install(home: Path) -> None:
    """Puts the CLI and its plugins where an installation puts them."""
    programs = home / "bin"
    programs.mkdir(parents=True)
    (programs / "pulumi").symlink_to(toolchain.ensure_built(toolchain.PULUMI) / "pulumi")
    plugin = _plugin(home, f"resource-kubernetes-v{importlib.metadata.version('pulumi-kubernetes')}")
    plugin.symlink_to(toolchain.ensure_built(toolchain.PULUMI_KUBERNETES) / plugin.name)
    host = _plugin(home, f"language-python-v{importlib.metadata.version('pulumi')}")
    host.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cluster.engine.language_host "$@"\n')
    host.chmod(0o755)


def _plugin(home: Path, name: str) -> Path:
    """The path of a plugin's program. `name` ends with the version that the Python package requires."""
    folder = home / "plugins" / name
    folder.mkdir(parents=True)
    return folder / f"pulumi-{name.rpartition('-v')[0]}"
