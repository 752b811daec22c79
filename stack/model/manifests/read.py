"""The resources in Kubernetes manifests, each with its place in its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from voice_policies import Fault, InvalidInputError

from components.declaration import Location
from stack.model.strict_yaml import read_located_documents

SUFFIXES = frozenset({".json", ".yaml", ".yml"})
TEMPLATE = Fault("", "is a Helm template", "render the chart first: `helm template NAME CHART`")
KUSTOMIZATION = Fault("", "is a Kustomization", "build it first: `kubectl kustomize DIR`")


@dataclass(frozen=True)
class Manifest:
    """One resource of a file."""

    content: Mapping[str, Any]
    file: str
    """Path of the file. It begins with the path that the user named."""
    node: yaml.Node = field(repr=False)
    """The parsed YAML, with line numbers."""

    @property
    def kind(self) -> str:
        """Kind of the resource."""
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        """Name of the resource."""
        return str(self.content["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Namespace of the resource. Like `kubectl apply`, `default` if the manifest has no namespace."""
        return str(self.content["metadata"].get("namespace") or "default")

    @property
    def title(self) -> str:
        """`namespace/name`. Only `name` in the default namespace."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """API group, kind, namespace and name: together unique in a cluster."""
        group = str(self.content["apiVersion"]).rpartition("/")[0]
        return group, self.kind, self.namespace, self.name

    def at(self, *path: str | int) -> Location:
        """The line of a field. If the manifest has no such field: the line of the nearest field around it."""
        node, line = self.node, self.node.start_mark.line
        for key in path:
            found = _child(node, key)
            if found is None:
                break
            node, line = found
        return Location(self.file, line + 1)


def _child(node: yaml.Node, key: str | int) -> tuple[yaml.Node, int] | None:
    """The value of a key or an index, with the line of the key."""
    if isinstance(node, yaml.MappingNode):
        return next(((value, name.start_mark.line) for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key], node.value[key].start_mark.line
    return None


def read_manifests(source: Path) -> tuple[Manifest, ...]:
    """Every resource of a file, or of every YAML and JSON file below a directory, including the items of lists.

    Raises `InvalidInputError` with every fault, such as:
    - an unreadable file or folder
    - a file that is not YAML
    - a document that is not a resource
    - a resource that is declared twice
    """
    if not source.exists():
        raise InvalidInputError(str(source), [Fault("", "does not exist", "expected a file or directory of manifests")])
    found: list[Manifest] = []
    faults: list[Fault] = []

    def refuse(error: OSError, path: object = None) -> None:
        faults.append(Fault("", "cannot be read", error.strerror or str(error), str(path or error.filename)))

    def below(directory: Path) -> list[Path]:
        names = (Path(folder, name) for folder, _, files in os.walk(directory, onerror=refuse) for name in files)
        return sorted(path for path in names if path.suffix in SUFFIXES)

    for path in below(source) if source.is_dir() else [source]:
        try:
            found += _resources(path, str(path))
        except InvalidInputError as error:
            faults += error.faults
        except OSError as error:
            refuse(error, path)
    faults += _repeated(found)
    if not faults and not found:
        accepted = f"expected resources in files that end in {', '.join(sorted(SUFFIXES))}"
        faults.append(Fault("", "has no manifest", accepted))
    if faults:
        raise InvalidInputError(str(source), faults)
    return tuple(found)


def _resources(path: Path, file: str) -> list[Manifest]:
    try:
        documents = read_located_documents(path)
    except InvalidInputError as error:
        # Only a regular file is read again, because reading a pipe would block.
        is_template = path.is_file() and "{{" in path.read_text(encoding="utf-8", errors="replace")
        located = [replace(fault, source=file + fault.source.removeprefix(path.name)) for fault in error.faults]
        raise InvalidInputError(file, [_as(TEMPLATE, each) if is_template else each for each in located]) from None
    found = [each for content, node in documents for each in _opened(content, node, file)]
    if faults := [each for each in found if isinstance(each, Fault)]:
        raise InvalidInputError(file, faults)
    return [each for each in found if isinstance(each, Manifest)]


def _as(known: Fault, found: Fault) -> Fault:
    """The known fault, with the file and line of the found fault."""
    return replace(known, source=found.source)


def _opened(content: Any, node: yaml.Node, file: str) -> Iterator[Manifest | Fault]:
    """The resource of a document, or the resources of a list. A fault if the document is no resource and no list."""
    if content is None:
        return
    place = Fault("", "is no Kubernetes resource", "", f"{file}:{node.start_mark.line + 1}")
    if not isinstance(content, dict):
        yield replace(place, accepted="expected a mapping with apiVersion, kind and metadata.name")
    elif str(content.get("apiVersion", "")).startswith("kustomize.config.k8s.io/") or _is_kustomization(file):
        yield _as(KUSTOMIZATION, place)
    elif str(content.get("kind", "")).endswith("List") and isinstance(content.get("items", 0), list | None):
        items = next(value for key, value in node.value if key.value == "items")
        for each, inner in zip(content["items"], items.value, strict=True) if content["items"] else ():
            yield from _opened(each, inner, file)
    elif missing := list(_missing(content)):
        yield replace(place, accepted=f"expected {' and '.join(missing)}")
    elif "{{" in content["metadata"]["name"]:
        yield _as(TEMPLATE, place)
    else:
        yield Manifest(content, file, node)


def _is_kustomization(file: str) -> bool:
    return Path(file).stem == "kustomization"


def _missing(content: Mapping[str, Any]) -> Iterator[str]:
    metadata = content.get("metadata")
    values = {"apiVersion": content.get("apiVersion"), "kind": content.get("kind")}
    values["metadata.name"] = metadata.get("name") if isinstance(metadata, dict) else None
    return (f"{name} as text" for name, value in values.items() if not isinstance(value, str))


def _repeated(manifests: list[Manifest]) -> Iterator[Fault]:
    first: dict[tuple[str, str, str, str], Manifest] = {}
    for manifest in manifests:
        other = first.setdefault(manifest.identity, manifest)
        if other is not manifest:
            accepted = f"it is also in {other.at()}: keep one of them"
            yield Fault(f"{manifest.kind} {manifest.title}", "is declared twice", accepted, str(manifest.at()))
