"""Policy and settings files as ConfigMaps, mounted as directories so that a change arrives without a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from components.component import ANNOTATION_PREFIX

if TYPE_CHECKING:
    from components.kubernetes.types import ConfigMap, ObjectMeta

DIGEST_ANNOTATION = f"{ANNOTATION_PREFIX}/policy-digest"
CONFIGURATION_ANNOTATION = f"{ANNOTATION_PREFIX}/configuration-digest"
"""On the pods of a program that reads its configuration at its start alone: a change rolls them."""
SETTINGS_FILE_NAME = "settings.json"


def file_text(document: dict[str, Any]) -> str:
    """A document as the text of its file: JSON, indented for review."""
    return to_json(document, indent=2).decode() + "\n"


def config_map(metadata: ObjectMeta, file_name: str, text: str) -> ConfigMap:
    """A ConfigMap of one file."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {file_name: text}}
