"""kube-score, a linter of rendered manifests, finds nothing in our own services."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import manifests, toolchain

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("programs")]

NAMESPACE = "apps"
OK_GRADE = 10


@pytest.fixture(scope="module")
def services(rendered: Callable[[str], Path]) -> str:
    """Everything in the namespace of our own services, as rendered for prod."""
    documents = [document for document in manifests.read(rendered("prod")) if document.namespace == NAMESPACE]
    assert list(manifests.of_kind((document.content for document in documents), "Deployment"))
    return "\n---\n".join(document.text for document in documents)


def test_kube_score_finds_nothing_in_our_services(services: str) -> None:
    kube_score = toolchain.KUBE_SCORE.cache / "kube-score"
    arguments = ("score", "--output-format=json", "--kubernetes-version=v1.36", "-")
    scored = subprocess.run([kube_score, *arguments], input=services, capture_output=True, text=True)
    findings = [
        f"{scored_object['object_name']}: {check['check']['name']}: {comment['path']} {comment['summary']}"
        for scored_object in json.loads(scored.stdout)
        for check in scored_object["checks"]
        if check["grade"] < OK_GRADE and not check["skipped"]
        for comment in check["comments"]
    ]
    assert findings == []
    assert scored.returncode == 0, scored.stderr


def test_no_check_is_ignored(services: str) -> None:
    assert "kube-score/" not in services
