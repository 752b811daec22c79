from __future__ import annotations

from components.observability.elasticsearch_setup import LOGS
from components.observability.jaeger import TRACES
from stack.model.settings import ROOT
from stack.voiceassistant.profiles import BLOCKS, PROFILES

TEXT = (ROOT / "docs" / "telemetry.md").read_text()


def test_the_documented_retentions_match_the_profiles() -> None:
    days = {name: str(profile.retentions[LOGS]).removesuffix("d") for name, profile in PROFILES.items()}
    assert days["dev"] == days["staging"]
    assert f"| {days['dev']} days, prod {days['prod']} |" in TEXT
    (traces,) = {str(profile.retentions[TRACES]).removesuffix("d") for profile in PROFILES.values()}
    assert f"| {traces} days |" in TEXT
    blocks = {name: str(profile.retentions[BLOCKS]).removesuffix("d") for name, profile in PROFILES.items()}
    assert f"| dev {blocks['dev']} day, staging {blocks['staging']}, prod {blocks['prod']} |" in TEXT
