"""kube-score, a linter of rendered manifests, finds nothing in our own services."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stack.policy_bundles import APPS
from tests.cluster import manifests

pytestmark = pytest.mark.cluster

WARNING = 5  # the grades: 1 critical, 5 warning, 7 almost OK, 10 OK


def test_kube_score_finds_nothing_in_our_services(kube_score: Path, rendered: Callable[[str], Path]) -> None:
    documents = [document for document in manifests.read(rendered("prod")) if document.namespace == APPS]
    assert list(manifests.of_kind((document.content for document in documents), "Deployment"))
    services = "\n---\n".join(document.text for document in documents)
    assert "kube-score/" not in services, "no check may be ignored"
    findings, status = score(kube_score, services)
    assert findings == []
    assert status == 0


def score(kube_score: Path, text: str) -> tuple[list[str], int]:
    """What kube-score calls critical or warns about, and its exit status."""
    arguments = ("score", "--output-format=json", "--kubernetes-version=v1.36", "-")
    scored = subprocess.run([kube_score, *arguments], input=text, capture_output=True, text=True, check=False)
    findings = [
        f"{each['object_name']}: {check['check']['name']}: {comment['path']} {comment['summary']}"
        for each in json.loads(scored.stdout)
        for check in each["checks"]
        if check["grade"] <= WARNING and not check["skipped"]
        for comment in check["comments"]
    ]
    return findings, scored.returncode
