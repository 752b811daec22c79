from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from voice_policies import Rate, Retry

from components.node import Replicas, Service, Sizing
from components.operation import hard, operation, stage
from stack.cli import main
from stack.model.platform import Platform
from stack.model.settings import ROOT
from tests import toy

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = {
    "Rate": Rate,
    "Replicas": Replicas,
    "Retry": Retry,
    "Service": Service,
    "Sizing": Sizing,
    "hard": hard,
    "operation": operation,
    "stage": stage,
}


@pytest.fixture(scope="module")
def resources() -> dict[tuple[str, str], Any]:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = dict(NAMES)
    exec(block, names)  # noqa: S102  # the README's own example
    catalogue = toy.TENANT.catalogue.model_copy(update={"nodes": (names["orders"], toy.PRICES, toy.STOCK)})
    platform = Platform(replace(toy.TENANT, catalogue=catalogue), toy.ENVIRONMENT)
    found = [resource for component in platform.components for resource in component.resources()]
    bundles = {("bundle", service.name): service.bundle for service in platform.microservices}
    return {(each["kind"], each["metadata"]["name"]): each for each in found} | bundles


def test_the_declared_call_opens_the_network_policies_of_both_ends(resources: dict[tuple[str, str], Any]) -> None:
    outward = resources["NetworkPolicy", "orders"]["spec"]["egress"]
    inward = resources["NetworkPolicy", "prices"]["spec"]["ingress"]
    assert {"port": 9000, "protocol": "TCP"} in [port for rule in outward for port in rule["ports"]]
    callers = [peer["podSelector"]["matchLabels"] for rule in inward for peer in rule["from"]]
    assert {"app.kubernetes.io/name": "orders"} in callers


def test_the_bundle_names_the_layer_of_each_policy_of_the_call(resources: dict[tuple[str, str], Any]) -> None:
    (call,) = resources["bundle", "orders"].outbound
    assert (call.name, call.max_attempts) == ("prices.list", 2)
    assert (call.enforced_by.timeout, call.enforced_by.retry, call.enforced_by.circuit_breaker) == ("runtime",) * 3
    assert [check.target for check in resources["bundle", "orders"].health.checks] == ["prices.list"]


def test_the_readme_shows_the_output_of_make_render(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["render"])
    assert without_times(capsys.readouterr().out) in without_times(README)


def without_times(text: str) -> str:
    """The text without times. The spaces before a time are removed too, because they depend on its length."""
    return re.sub(r" +(\d+\.\d s|time) ", " ", text)


def test_every_document_is_in_the_index() -> None:
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_to_files(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in targets if link and not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []


def test_the_readme_fits_two_screens() -> None:
    assert len(README.splitlines()) <= 2 * 40
