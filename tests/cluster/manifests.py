"""Tests apply the rendered text, so kubectl parses the manifests, not our own reader."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Object: TypeAlias = dict[str, Any]

DOCUMENT_START = re.compile(r"^---[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """One object of a rendered tree. `file` is relative to the tree."""

    file: Path
    text: str
    content: Object

    @property
    def namespace(self) -> str:
        return str(self.content["metadata"].get("namespace", ""))


def read(tree: Path) -> list[Document]:
    documents = [
        Document(path.relative_to(tree), text, content)
        for path in sorted(tree.rglob("*.yaml"))
        for text in DOCUMENT_START.split(path.read_text())
        if (content := yaml.load(text, Loader=yaml.CSafeLoader)) is not None
    ]
    if not documents:
        message = f"{tree}: no manifests (*.yaml) in it"
        raise FileNotFoundError(message)
    return documents


def with_volume_templates(documents: Sequence[Document], deployed: Iterable[Document]) -> list[Document]:
    """`documents` with the deployed volume templates, because the API server refuses to change these templates."""
    sets = {identity(each.content): each.content for each in deployed if each.content["kind"] == "StatefulSet"}
    return [_with_templates(each, sets.get(identity(each.content))) for each in documents]


def _with_templates(document: Document, deployed: Object | None) -> Document:
    if deployed is None or "volumeClaimTemplates" not in deployed["spec"]:
        return document
    templates = deployed["spec"]["volumeClaimTemplates"]
    content = {**document.content, "spec": {**document.content["spec"], "volumeClaimTemplates": templates}}
    return Document(document.file, json.dumps(content), content)


def write(documents: Iterable[Document], tree: Path) -> None:
    for document in documents:
        path = tree / document.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(f"---\n{document.text.strip()}\n")


def identity(content: Object) -> str:
    """Kind, namespace and name, which never change during the life of an object."""
    metadata = content["metadata"]
    return f"{content['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def of_kind(objects: Iterable[Object], *kinds: str) -> Iterator[Object]:
    return (content for content in objects if content["kind"] in kinds)


def claims(objects: list[Object]) -> Iterator[Object]:
    """The spec of every claim: of the declared claims, and of the claims that StatefulSets create from templates."""
    declared = {identity(claim): claim["spec"] for claim in of_kind(objects, "PersistentVolumeClaim")}
    for workload in of_kind(objects, "StatefulSet"):
        metadata = workload["metadata"]
        for template in workload["spec"].get("volumeClaimTemplates", []):
            for ordinal in range(workload["spec"].get("replicas", 1)):
                name = f"{template['metadata']['name']}-{metadata['name']}-{ordinal}"
                claim = f"PersistentVolumeClaim {metadata['namespace']}/{name}"
                declared.setdefault(claim, template["spec"])
    yield from declared.values()
