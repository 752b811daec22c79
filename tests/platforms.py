from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from components.node import Node
from stack.model.catalogue import Catalogue
from stack.model.environments import Environment, load_environment
from stack.model.platform import Platform
from stack.model.settings import ROOT, environments
from stack.model.tenant import Tenant
from stack.voiceassistant import TENANT

DAY = date(2026, 11, 30)
"""The day of every audit in a test, so that no acceptance expires by itself."""
ENVIRONMENTS = ("dev", "staging", "prod")
"""The environments that are deployed."""
VARIANT_FILES = Path(__file__).with_name("environments")
VARIANTS = environments(VARIANT_FILES)
"""Environments that only tests use. Each has a file in `tests/environments/`."""


@cache
def platform(name: str) -> Platform:
    return Platform(TENANT, real_environment(name))


@cache
def real_environment(name: str) -> Environment:
    return load_environment(name, TENANT, VARIANT_FILES if name in VARIANTS else ROOT)


def with_profile(changed: Environment, **changes: object) -> Environment:
    return changed.model_copy(update={"profile": changed.profile.model_copy(update=changes)})


@cache
def resources(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(dict(resource) for _, found in platform(name).resources for resource in found)


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources(name) if resource["kind"] == kind]


def with_nodes(*nodes: Node) -> Tenant:
    """VoiceAssistant with these nodes instead of its catalogue's nodes. Its tiers deploy them."""
    catalogue = Catalogue(source="tests", site=TENANT.catalogue.site, nodes=nodes)
    return replace(TENANT, catalogue=catalogue)
