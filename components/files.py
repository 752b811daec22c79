"""Files that a program reads: their text, and the digest by which a change restarts it."""

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
    """A document as the text of its file: JSON, indented for review."""
    return to_json(document, indent=2).decode() + "\n"


def digest_of(files: Mapping[str, str]) -> str:
    """A digest that changes with any of the files, by name."""
    return sha256(repr(sorted(files.items())).encode()).hexdigest()
