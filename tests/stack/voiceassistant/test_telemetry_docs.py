"""docs/telemetry.md is true: its commands make what Elasticsearch needs, its table matches the configuration."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from components.observability.elasticsearch import TRANSPORT
from components.observability.elasticsearch_setup import LOGS
from components.observability.jaeger import TRACES
from stack.model.settings import ROOT
from stack.voiceassistant.profiles import BLOCKS, PROFILES

TEXT = (ROOT / "docs" / "telemetry.md").read_text()


def test_its_commands_make_a_certificate_that_its_authority_signed(tmp_path: Path) -> None:
    (commands,) = (block for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) if "openssl" in block)
    subprocess.run(["sh", "-e", "-c", commands], check=True, cwd=tmp_path, capture_output=True, timeout=300)
    assert all((tmp_path / key).exists() for key in TRANSPORT.keys)
    authority = x509.load_pem_x509_certificate((tmp_path / "authority").read_bytes())
    certificate = x509.load_pem_x509_certificate((tmp_path / "certificate").read_bytes())
    certificate.verify_directly_issued_by(authority)
    key = serialization.load_pem_private_key((tmp_path / "private-key").read_bytes(), password=None)
    assert key.public_key() == certificate.public_key()
    assert b"BEGIN PRIVATE KEY" in (tmp_path / "private-key").read_bytes()


def test_its_retentions_are_those_that_are_configured() -> None:
    days = {name: str(profile.retentions[LOGS]).removesuffix("d") for name, profile in PROFILES.items()}
    assert days["dev"] == days["staging"]
    assert f"| {days['dev']} days, prod {days['prod']} |" in TEXT
    (traces,) = {str(profile.retentions[TRACES]).removesuffix("d") for profile in PROFILES.values()}
    assert f"| {traces} days |" in TEXT
    blocks = {name: str(profile.retentions[BLOCKS]).removesuffix("d") for name, profile in PROFILES.items()}
    assert f"| dev {blocks['dev']} day, staging {blocks['staging']}, prod {blocks['prod']} |" in TEXT
