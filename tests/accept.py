"""`python -m tests.accept` writes the files for reviewers: `tests/snapshots/` and docs/review-comment.md.

The snapshots are the manifests of dev and prod, the text of `voice diff staging prod`, and the URNs of all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from stack.output.difference import compare
from stack.output.difference.report import text
from stack.output.difference.sides import side_of
from stack.output.render import manifest, manifest_path
from stack.voiceassistant import TENANT
from tests.platforms import ENVIRONMENTS, platform
from tests.review_comment import COMMENT, comment
from tests.stack.deploy.program_run import deployed

SNAPSHOTS = Path(__file__).with_name("snapshots")


def manifests(environment: str) -> dict[Path, str]:
    """One file for each component: `<environment>/<folder>/<component>.yaml`."""
    return {
        SNAPSHOTS / environment / manifest_path(component).removeprefix("manifests/"): manifest(resources, environment)
        for component, resources in platform(environment).resources
    }


def comparison(environment: str, other: str) -> dict[Path, str]:
    difference = compare(side_of(environment, TENANT), side_of(other, TENANT))
    return {SNAPSHOTS / f"{environment}-{other}.txt": f"{text(difference)}\n"}


def urns(environment: str) -> dict[Path, str]:
    """The URN of every resource. A changed URN of an existing resource needs an alias."""
    found = sorted(registration.urn for registration in deployed(environment).registrations)
    return {SNAPSHOTS / "urns" / f"{environment}.txt": "".join(f"{urn}\n" for urn in found)}


REVIEWED: Mapping[str, Callable[[], dict[Path, str]]] = {
    "dev": partial(manifests, "dev"),
    "staging": partial(comparison, "staging", "prod"),
    "prod": partial(manifests, "prod"),
    "comment": comment,
    **{f"urns of {environment}": partial(urns, environment) for environment in ENVIRONMENTS},
}


def committed() -> set[Path]:
    return {path for path in (*SNAPSHOTS.rglob("*"), COMMENT) if path.is_file()}


def accept() -> None:
    files = {path: content for family in REVIEWED.values() for path, content in family().items()}
    for path in committed() - files.keys():
        path.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    accept()
