import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.component import Component
from stack.voiceassistant.site import APPS
from tests.cluster import manifests
from tests.platforms import platform

pytestmark = pytest.mark.cluster

WARNING = 5  # the grades: 1 critical, 5 warning, 7 almost OK, 10 OK
# Check → the platform's rule. A component that is exempt from the rule may fail the check.
RULES = {
    "Container Security Context User Group ID": "run_as_user",
    "Deployment Replicas": "two_replicas",
    "Pod Probes Identical": "own_readiness",
    "StatefulSet has ServiceName": "headless_service",
}
# Check → the reason why the platform accepts its findings.
ACCEPTED = {
    "Container Image Pull Policy": "a digest or a release's tag always names the same image, and a pod must start "
    "while the registry is down (see PULL_POLICY in components/container.py)",
}
# kube-score finds pods only by the labels of templates. It sees neither the label with which a StatefulSet names each
# pod, nor the pods that an operator creates.
BLIND = {
    "Service Targets Pod": "statefulset.kubernetes.io/pod-name",
    "NetworkPolicy targets Pod": "voiceassistant.dev/store",
}


@dataclass(frozen=True)
class Finding:
    """`subject` has the kind, API version, namespace and name of the object."""

    subject: str
    check: str
    said: str

    @property
    def place(self) -> tuple[str, str, str]:
        kind, *_, namespace, name = self.subject.split("/")
        return kind, namespace, name


def test_kube_score_finds_only_accepted_findings_in_our_services(
    kube_score: Path, rendered: Callable[[str], Path]
) -> None:
    documents = [document for document in manifests.read(rendered("prod")) if document.namespace == APPS]
    assert list(manifests.of_kind((document.content for document in documents), "Deployment"))
    services = "\n---\n".join(document.text for document in documents)
    assert "kube-score/" not in services, "an annotation switches off a check of kube-score"
    assert {found.check for found in score(kube_score, services)} == ACCEPTED.keys(), (
        "a finding that is not accepted, or an accepted check without a finding"
    )


def test_an_exemption_covers_each_finding_of_kube_score_that_is_not_accepted(
    kube_score: Path, rendered: Callable[[str], Path], report: Callable[[str], None]
) -> None:
    documents = manifests.read(rendered("prod"))
    whole = "\n---\n".join(document.text for document in documents)
    found_here = [found for found in score(kube_score, whole) if found.check not in ACCEPTED]
    findings = [found for found in found_here if not is_blind(found, documents)]
    owners: dict[tuple[str, str, str], Component] = {
        (resource["kind"], component.namespace, resource["metadata"]["name"]): component
        for component in platform("prod").components
        for resource in component.resources()
    }
    violated = {(owners[found.place].name, RULES.get(found.check, found.check)) for found in findings}
    exempt = {
        (component.name, exemption.rule)
        for component in platform("prod").components
        for exemption in component.exemptions
    }
    assert violated <= exempt, findings
    # kube-score sees no pod of PostgreSQL, because the operator creates these pods.
    operated = {("postgresql", "run_as_user")}
    assert {found for found in exempt if found[1] in RULES.values()} - operated == violated, (
        "an exemption without a finding"
    )
    report(f"kube-score: 0 findings in {APPS}; elsewhere {len(findings)}, each covered by an exemption")


def is_blind(finding: Finding, documents: list[manifests.Document]) -> bool:
    """True if kube-score looked for pods that no template describes."""
    label = BLIND.get(finding.check)
    objects = {tuple(manifests.identity(each.content).replace("/", " ").split()): each.text for each in documents}
    return label is not None and label in objects[finding.place]


def score(kube_score: Path, text: str) -> list[Finding]:
    arguments = ("score", "--output-format=json", "--kubernetes-version=v1.36", "-")
    scored = subprocess.run([kube_score, *arguments], input=text, capture_output=True, text=True, check=False)
    return [
        Finding(each["object_name"], check["check"]["name"], f"{comment['path']} {comment['summary']}")
        for each in json.loads(scored.stdout)
        for check in each["checks"]
        if check["grade"] <= WARNING and not check["skipped"]
        for comment in check["comments"]
    ]
