"""The sides of a comparison: an environment, a rendered tree, or an environment at a git revision."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from pydantic import TypeAdapter, ValidationError
from voice_policies import Fault, InvalidInputError, one_of

from stack.audit.ledgers.measures import Measures, measures
from stack.model.platform import Platform, load_platform
from stack.model.settings import ROOT, environments
from stack.model.strict_yaml import read_documents
from stack.model.tenant import Tenant
from stack.output.difference import Identity, Resources, Side
from stack.output.tree import INDEX, LEDGER

__all__ = ["side_of"]

_MEASURES: TypeAdapter[Measures] = TypeAdapter(dict[str, dict[str, float | str]])
LONGEST_RENDER = 120
"""Longest time of each command of git, and of the rendering of a revision, in seconds."""


def side_of(side: str, tenant: Tenant) -> Side:
    """The resources and measures of `side`. Raises `InvalidInputError` if `side` names nothing or cannot be read."""
    if side in (known := environments()):
        return side_of_platform(load_platform(tenant, side))
    if (Path(side) / INDEX).is_file():
        return _side_of_tree(Path(side))
    revision, colon, name = side.rpartition(":")
    if colon and revision and name:
        return _side_of_revision(revision, name)
    accepted = f"{one_of(side, known)}, a directory that `voice render` wrote, or REVISION:ENV"
    raise InvalidInputError("voice diff", [Fault(repr(side), "names nothing to compare", accepted)])


def side_of_platform(platform: Platform) -> Side:
    """The resources and measures of a platform."""
    resources = _by_identity(resource for _, found in platform.resources for resource in found)
    return Side(resources, measures(platform))


def _side_of_tree(root: Path) -> Side:
    found, faults = [], []
    for path in sorted(root.glob("manifests/**/*.yaml")):
        for number, document in enumerate(read_documents(path)):
            if _is_manifest(document):
                found.append(document)
            elif document is not None:
                accepted = "expected apiVersion, kind, metadata.name and a mapping spec, as `voice render` writes them"
                faults.append(Fault(f"{path.relative_to(root)}[{number}]", "is not a Kubernetes resource", accepted))
    if faults:
        raise InvalidInputError(str(root), faults)
    return Side(_by_identity(found), _measures(root / LEDGER))


def _measures(path: Path) -> Measures | None:
    """The measures of a rendered tree. Raises `InvalidInputError` if the file has another form."""
    if not path.is_file():
        return None
    try:
        return _MEASURES.validate_json(path.read_bytes())
    except ValidationError as error:
        accepted = "expected measure → subject → value, as `voice render` writes them"
        fault = Fault(LEDGER, f"has {error.error_count()} faults", accepted)
        raise InvalidInputError(str(path.parent), [fault]) from None


def _is_manifest(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(metadata := document.get("metadata"), dict):
        return False
    if not isinstance(document.get("spec", {}), dict):
        return False
    return all(
        isinstance(text, str) for text in (document.get("apiVersion"), document.get("kind"), metadata.get("name"))
    )


def _by_identity(resources: Iterable[Any]) -> Resources:
    return {Identity.of(resource): resource for resource in resources}


def _side_of_revision(revision: str, name: str) -> Side:
    with tempfile.TemporaryDirectory(prefix="voice-diff-") as directory:
        render_revision(revision, name, Path(directory))
        return _side_of_tree(Path(directory))


def render_revision(revision: str, name: str, out: Path) -> None:
    """Render a revision with its own code and settings into `out`. Raises `InvalidInputError` if it fails."""
    commit = _git(revision, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    archive = _git(revision, "archive", "--format=zip", commit.decode().strip())
    with tempfile.TemporaryDirectory(prefix="voice-revision-") as source:
        with ZipFile(io.BytesIO(archive)) as files:
            files.extractall(source)
        variables = {"PYTHONPATH": os.pathsep.join(str(Path(source, part)) for part in ("", "policies"))}
        command = [sys.executable, "-m", "stack.cli", "render", "-o", str(out), "--", name]
        done = _run(revision, command, cwd=source, env={**os.environ, **variables})
    # The audit of a revision may find errors. `voice render` then writes the tree all the same, and exits 1.
    if not (out / INDEX).is_file():
        raise _unrendered(revision, done.stderr)


def _git(revision: str, *arguments: str) -> bytes:
    done = _run(revision, ["git", "-C", str(ROOT), *arguments])
    if done.returncode:
        raise _unrendered(revision, done.stderr)
    return done.stdout


def _run(revision: str, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 - the program is git or this Python, and no shell reads the arguments
            command, capture_output=True, check=False, timeout=LONGEST_RENDER, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unrendered(revision, str(error).encode()) from None


def _unrendered(revision: str, said: bytes) -> InvalidInputError:
    text = " ".join(said.decode(errors="replace").split())[-300:]
    return InvalidInputError("voice diff", [Fault(revision, "cannot be rendered", text)])
