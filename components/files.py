"""Text and digests of configuration files. A changed digest in a pod template replaces the pods."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from pydantic_core import to_json

from components.component import ANNOTATION_PREFIX

__all__ = ["file_text"]

DIGEST_ANNOTATION = f"{ANNOTATION_PREFIX}/policy-digest"
CONFIG_DIGEST_ANNOTATION = f"{ANNOTATION_PREFIX}/config-digest"


def file_text(document: dict[str, Any]) -> str:
    """A document as JSON text, indented for review."""
    return to_json(document, indent=2).decode() + "\n"


def digest_of(files: Mapping[str, str]) -> str:
    """A digest of the names and contents of files."""
    return sha256(repr(sorted(files.items())).encode()).hexdigest()
