"""Policy and settings files as ConfigMaps, mounted as directories so that a change arrives without a restart."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from components.component import ANNOTATION_PREFIX

DIGEST_ANNOTATION = f"{ANNOTATION_PREFIX}/policy-digest"
CONFIG_DIGEST_ANNOTATION = f"{ANNOTATION_PREFIX}/config-digest"


def file_text(document: dict[str, Any]) -> str:
    """A document as the text of its file: JSON, indented for review."""
    return to_json(document, indent=2).decode() + "\n"


def digest_of(files: dict[str, str]) -> str:
    """Changes with any of the files: on a pod template it rolls the pods of a server that reads them only at start."""
    return sha256(repr(sorted(files.items())).encode()).hexdigest()
