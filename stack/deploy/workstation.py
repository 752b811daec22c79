"""The machine of the person who runs `voice up` or `voice down`.

The machine needs Pulumi and kubectl. Without `--context` the machine also needs Docker and kind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from voice_policies import Fault, InvalidInputError

from stack.deploy.cluster import Cluster, ClusterError
from stack.model.settings import ROOT

__all__ = ["Workstation"]

INSTALL = {
    "pulumi": "brew install pulumi/tap/pulumi",
    "kubectl": "brew install kubectl",
    "kind": "brew install kind",
    "docker": "brew install --cask docker",
}
"""Program → a command that installs it."""
KIND_CLUSTER = "voice"
IMAGE = "reference-service:dev"
DOCKERFILE = "runtime/voice_reference/Dockerfile"


class Workstation:
    """Deploys one environment to one cluster.

    Pulumi's state stays on this machine unless PULUMI_BACKEND_URL names another place. If neither
    PULUMI_CONFIG_PASSPHRASE nor PULUMI_CONFIG_PASSPHRASE_FILE is set, a passphrase is generated once and kept next to
    Pulumi's own files.
    """

    def __init__(self, command: str, environment: str, context: str | None) -> None:
        self.command = command
        """The title of errors: `voice up` or `voice down`."""
        self.environment = environment
        self.owns_cluster = context is None
        self.context = context or f"kind-{KIND_CLUSTER}"

    def require(self, *, builds_image: bool) -> None:
        """Check the needed programs, and set Pulumi's variables for state and passphrase unless the user has set them.

        Raises `InvalidInputError` with every missing program and its install command, and for a missing `--image`.
        """
        needed = ["pulumi", "kubectl", *(["kind", "docker"] if self.owns_cluster else [])]
        faults = [
            Fault(name, "is not on PATH", f"install it, for example with `{INSTALL[name]}`")
            for name in needed
            if shutil.which(name) is None
        ]
        if not self.owns_cluster and builds_image:
            accepted = "expected an image that the nodes of this cluster can pull"
            faults.append(Fault("--image", "is missing; --context requires --image", accepted))
        if faults:
            raise InvalidInputError(self.command, faults)
        os.environ.setdefault("PULUMI_BACKEND_URL", "file://~?metadata=skip")
        os.environ.setdefault("PULUMI_SELF_MANAGED_STATE_GZIP", "true")
        if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys():
            os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase_file())

    def create_cluster(self) -> None:
        """Create the kind cluster, unless it exists or the user named another context."""
        if self.owns_cluster and KIND_CLUSTER not in self.run("kind", "get", "clusters", shows=False).split():
            self.run("kind", "create", "cluster", "--name", KIND_CLUSTER, "--wait", "120s")

    def build_image(self) -> str:
        """Build the reference service's image and load it onto the nodes, so that the nodes need no registry."""
        self.run("docker", "build", "--file", DOCKERFILE, "--tag", IMAGE, ".")
        self.run("kind", "load", "docker-image", IMAGE, "--name", KIND_CLUSTER)
        return IMAGE

    def create_stack(self, image: str) -> None:
        """Select the stack, or create it, and write cluster and image to the stack's file."""
        try:
            identifier = Cluster(self.context).identifier
        except ClusterError as error:
            accepted = "expected a context of the kubeconfig whose cluster kubectl can query"
            raise InvalidInputError(self.command, [Fault("--context", f"{self.context}: {error}", accepted)]) from None
        self.run("pulumi", "stack", "select", self.environment, "--create")
        settings = {
            "kubernetes:context": self.context,
            "kubernetes:clusterIdentifier": identifier,
            "reference_image": image,
        }
        for key, value in settings.items():
            self.run("pulumi", "config", "set", "--stack", self.environment, key, value)

    def remove(self) -> None:
        """Delete our kind cluster. With `--context`, destroy the stack's resources. The environment's file stays."""
        if self.owns_cluster:
            self.run("kind", "delete", "cluster", "--name", KIND_CLUSTER)
        else:
            self.run("pulumi", "destroy", "--yes", "--skip-preview", "--stack", self.environment)
        self.run("pulumi", "stack", "rm", self.environment, "--yes", "--force", "--preserve-config")

    def run(self, *command: str, shows: bool = True) -> str:
        """Run a program in the project's folder. Return its output, or with `shows` show it on stderr.

        Raises `InvalidInputError` if the program fails.
        """
        sys.stdout.flush()
        sys.stderr.write(f"· {' '.join(command)}\n")
        output = sys.stderr if shows else subprocess.PIPE
        done = subprocess.run(list(command), cwd=ROOT, stdout=output, text=True, check=False)  # noqa: S603 - a list, and no shell
        if done.returncode:
            fault = Fault(" ".join(command), f"ended with exit code {done.returncode}", "see its message above")
            raise InvalidInputError(self.command, [fault])
        return done.stdout or ""


def _passphrase_file() -> Path:
    folder = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "voiceassistant.passphrase"
    if not file.exists():
        beside = file.with_name(f".{file.name}.new")
        beside.touch(mode=0o600)
        beside.write_text(secrets.token_urlsafe(32))
        os.replace(beside, file)  # noqa: PTH105 - the documentation of os.replace promises that it is atomic
    return file
