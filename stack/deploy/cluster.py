"""The cluster of a stack, queried through `kubectl` before the program registers a resource.

`kubectl` reads the same kubeconfig as Pulumi's provider, with the same plugins, so it logs in wherever the provider
does.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

TIMEOUT = 10
"""Seconds that the API server may take for one answer."""


class ClusterError(Exception):
    """`kubectl` failed or is missing. If it failed, the message is the last line that it wrote."""


class NotFoundError(ClusterError):
    """The API server has no object at the requested path."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, named by a context of a kubeconfig."""

    context: str
    kubeconfig: str | None = field(default=None, repr=False)
    """Path of a file. `None` means kubectl's default."""

    @classmethod
    @contextmanager
    def connected(cls, context: str, kubeconfig: str | None) -> Iterator[Self]:
        """The cluster of a context. `kubeconfig` is a path, the text of a file, or `None` for kubectl's default."""
        if kubeconfig is None:
            yield cls(context)
            return
        if "\n" not in kubeconfig and not kubeconfig.startswith("{"):
            yield cls(context, str(Path(kubeconfig).expanduser()))
            return
        with tempfile.NamedTemporaryFile("w", prefix="kubeconfig-") as file:  # readable by this user only
            file.write(kubeconfig)
            file.flush()
            yield cls(context, file.name)

    @property
    def identifier(self) -> str:
        """The uid of the namespace `kube-system`. It stays the same for the cluster's life, even at another address."""
        return str(self.get("/api/v1/namespaces/kube-system")["metadata"]["uid"])

    @property
    def contexts(self) -> list[str]:
        """The contexts of the kubeconfig."""
        return kubectl(self.kubeconfig, "config", "get-contexts", "--output=name").split()

    def served(self, api_version: str) -> frozenset[str]:
        """The plural names of the kinds that the API server serves in an API version. Empty for an unknown version."""
        try:
            answer = self.get(f"/apis/{api_version}")
        except NotFoundError:
            return frozenset()
        return frozenset(resource["name"] for resource in answer["resources"])

    def get(self, path: str) -> dict[str, Any]:
        """The object or the list at a path of the API."""
        answer: dict[str, Any] = json.loads(self._kubectl("get", f"--raw={path}"))
        return answer

    def _kubectl(self, *arguments: str) -> str:
        return kubectl(self.kubeconfig, f"--context={self.context}", f"--request-timeout={TIMEOUT}s", *arguments)


def kubectl(kubeconfig: str | None, *arguments: str) -> str:
    """The output of `kubectl`. Raises `ClusterError` if `kubectl` fails or is missing."""
    command = ["kubectl", *([f"--kubeconfig={kubeconfig}"] if kubeconfig else []), *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - a list, and no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ClusterError("kubectl is not on PATH: install it; the program queries the cluster with it") from None
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise (NotFoundError if "(NotFound)" in said else ClusterError)(said)
    return done.stdout
