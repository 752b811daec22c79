from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from components.container import Image
from components.links import Links
from components.node import Sizing
from components.observability.blackbox_exporter import BlackboxExporter
from components.scrape import ANSWERS, CONNECTS, BlackboxModule


def exporter(*modules: BlackboxModule) -> BlackboxExporter:
    return BlackboxExporter(
        name="blackbox-exporter",
        namespace="observability",
        image=Image(reference="prom/blackbox-exporter:v0.28.0"),
        sizing=Sizing.of(cpu=("50m", "200m"), memory=("128Mi", "256Mi")),
        modules=modules,
        links=Links(()),
        server_name="api.example.com",
    )


def test_the_exporter_has_the_declared_modules_and_a_module_that_checks_certificates() -> None:
    modules = json.loads(exporter(CONNECTS, ANSWERS).files["blackbox.json"])["modules"]
    assert modules.keys() == {"tls", "tcp", "http"}
    assert modules["tls"]["tcp"]["tls_config"]["server_name"] == "api.example.com"
    assert modules["http"]["http"]["valid_status_codes"] == [200, 401]


def test_two_modules_of_one_name_are_refused() -> None:
    other = BlackboxModule(name="tcp", prober="tcp", settings={"tls": True})
    with pytest.raises(ValidationError, match="modules: tcp appears twice"):
        exporter(CONNECTS, other)
