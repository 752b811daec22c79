from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from stack.audit import audit_outcome
from stack.model.platform import Platform
from stack.model.settings import ROOT
from stack.output.diagrams import component_diagram
from stack.output.difference import compare
from stack.output.difference.sides import side_of
from stack.output.documents import architecture
from stack.output.render import render
from tests import toy
from tests.platforms import DAY

PLATFORM = Platform(toy.TENANT, toy.ENVIRONMENT)


def test_the_toy_is_rendered(tmp_path: Path) -> None:
    render(PLATFORM, tmp_path / "toy")
    written = {str(path.relative_to(tmp_path / "toy")) for path in tmp_path.rglob("*.yaml")}
    assert written == {
        "manifests/10-namespaces/priority-classes.yaml",
        "manifests/10-namespaces/shop.yaml",
        "manifests/10-namespaces/stores.yaml",
        "manifests/20-data/stock.yaml",
        "manifests/50-services/orders.yaml",
        "manifests/50-services/prices.yaml",
    }
    everything = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "voice-apps" not in everything
    assert "voice-observability" not in everything


def test_every_rule_holds_on_the_toy_or_does_not_apply() -> None:
    outcome = audit_outcome(PLATFORM, on=DAY)
    assert (outcome.open, outcome.unused) == ((), ())
    verdicts = {found.rule.id: found.text for found in outcome.verdicts}
    assert verdicts["N01"] == verdicts["N02"] == verdicts["D02"] == verdicts["T01"] == "holds"


def test_a_changed_service_is_the_only_difference(tmp_path: Path) -> None:
    nodes = (toy.ORDERS, toy.PRICES.model_copy(update={"http_port": 8081}), toy.STOCK)
    changed = replace(toy.TENANT, catalogue=toy.TENANT.catalogue.model_copy(update={"nodes": nodes}))
    for name, tenant in (("before", toy.TENANT), ("after", changed)):
        render(Platform(tenant, toy.ENVIRONMENT), tmp_path / name)
    before, after = (side_of(str(tmp_path / name), toy.TENANT) for name in ("before", "after"))
    assert not compare(before, before)
    assert {change.identity.name.partition("-")[0] for change in compare(before, after).changed} == {"prices"}


def test_the_toy_is_drawn_and_documented() -> None:
    drawn = component_diagram(toy.TENANT.graph)
    assert "Orders -.-> Prices" in drawn
    assert "Prices --> Stock" in drawn
    assert architecture(toy.TENANT).splitlines()[1] == "# Architecture of Toy"


def test_the_toy_imports_no_module_of_voiceassistant() -> None:
    script = (
        "import sys; from tests import toy, small; from stack.audit import audit; "
        "from stack.deploy.program import register; from stack.model.platform import Platform; "
        "from stack.output.difference.sides import side_of; from stack.output.documents import architecture; "
        "from datetime import date; audit(Platform(toy.TENANT, toy.ENVIRONMENT), on=date(2026, 11, 30)); "
        "print(sorted(name for name in sys.modules if name.startswith('stack.voiceassistant')))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n"
