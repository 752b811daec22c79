"""The sides of a comparison: an environment, a rendered tree, or an environment at a git revision."""

from __future__ import annotations

import io
import os
import reprlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import ZipFile

from pydantic import Field, TypeAdapter, ValidationError
from voice_policies import Fault, InvalidInputError, one_of

from stack.audit.ledgers.measures import Measures, measures
from stack.model.platform import Platform, load_platform
from stack.model.settings import ROOT, environments
from stack.model.strict_yaml import read_documents
from stack.model.tenant import Tenant
from stack.output.difference import Identity, Resources, Side
from stack.output.tree import INDEX, LEDGER, read_index

__all__ = ["side_of"]

_Amount = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_MEASURES: TypeAdapter[Measures] = TypeAdapter(dict[str, dict[str, _Amount | Literal["hard", "soft", "link"]]])
LONGEST_RENDER = 120
"""Time limit for each git command and for the rendering of a revision, in seconds."""
PACKAGES = ("components", "policies/voice_policies", "stack/cli")
"""The packages that render a revision. If the revision lacks one, Python would import it from this checkout."""


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
    found, faults = [], list(_index_faults(root))
    for path in sorted(root.glob("manifests/**/*.yaml")):
        place = str(path.relative_to(root))
        try:
            documents = read_documents(path)
        except InvalidInputError as error:
            faults += [replace(each, source=place + each.source.removeprefix(path.name)) for each in error.faults]
            continue
        for number, document in enumerate(documents):
            if _is_manifest(document):
                found.append(document)
            elif document is not None:
                accepted = "expected apiVersion, kind, metadata.name and a mapping spec, as `voice render` writes them"
                faults.append(Fault(f"{place}[{number}]", "is not a Kubernetes resource", accepted))
    counts = Counter(map(Identity.of, found))
    faults += [Fault(str(each), "is declared twice", "keep one of them") for each, many in counts.items() if many > 1]
    measured = None
    try:
        measured = _measures(root / LEDGER)
    except ValidationError as error:
        faults += _ledger_faults(error)
    if faults:
        raise InvalidInputError(str(root), faults)
    return Side(_by_identity(found), measured)


def _index_faults(root: Path) -> Iterator[Fault]:
    """The faults of an incomplete or changed tree, for example after a killed run of `voice render`."""
    accepted = "render the environment again"
    try:
        index = read_index(root / INDEX)
    except ValueError as error:
        yield Fault(INDEX, str(error), accepted)
        return
    if not index.is_complete:
        yield Fault(INDEX, "says that a run of `voice render` did not end", accepted)
    for path in sorted(index.files):
        if path.startswith("manifests/") and not os.path.lexists(root / path):
            yield Fault(path, "is missing", accepted)


def _measures(path: Path) -> Measures | None:
    """The measures of a rendered tree. Raises `ValidationError` if the file has another form."""
    return _MEASURES.validate_json(path.read_bytes()) if path.is_file() else None


def _ledger_faults(error: ValidationError) -> Iterator[Fault]:
    """One fault for each wrong value. For such a value, pydantic reports one error for each permitted type."""
    accepted = (
        "expected measure → subject → value, as `voice render` writes them:"
        " the value is a number ≥ 0, or `hard`, `soft` or `link`"
    )
    found = {".".join(map(str, each["loc"][:2])): each for each in error.errors(include_url=False)}
    for place, each in found.items():
        if each["type"] == "json_invalid":
            yield Fault(place, "is not JSON", each["ctx"]["error"], LEDGER)
        else:
            yield Fault(place, f"is {reprlib.repr(each['input'])}", accepted, LEDGER)


def _is_manifest(document: object) -> bool:
    if not isinstance(document, dict) or not isinstance(metadata := document.get("metadata"), dict):
        return False
    if not isinstance(document.get("spec", {}), dict) or not isinstance(metadata.get("namespace", ""), str):
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
        if missing := [part for part in PACKAGES if not Path(source, part, "__init__.py").is_file()]:
            text = f"it has no {', '.join(missing)}; expected a revision that has the code of `voice`"
            raise _unrendered(revision, text.encode())
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
