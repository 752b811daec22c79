from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from voice_reference.__main__ import POLICY_PATH, SETTINGS_PATH
from voice_runtime.health.app import LIVENESS_PATH, READINESS_PATH
from voice_runtime.settings import load_settings

from tests.platforms import of_kind

PYTHON_SERVICE = "rag-engine"
"""Every service has the same contract, so one stands for all."""


@pytest.fixture(params=["dev", "staging", "prod"])
def container(request: pytest.FixtureRequest) -> dict[str, Any]:
    deployments = {each["metadata"]["name"]: each for each in of_kind(request.param, "Deployment")}
    (found,) = deployments[PYTHON_SERVICE]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_probes_request_served_paths(container: dict[str, Any]) -> None:
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": LIVENESS_PATH, "port": "http"},
        "livenessProbe": {"path": LIVENESS_PATH, "port": "http"},
        "readinessProbe": {"path": READINESS_PATH, "port": "http"},
    }


def test_the_service_reads_the_mounted_paths_and_ports(container: dict[str, Any], tmp_path: Path) -> None:
    variables = {each["name"]: each.get("value") for each in container["env"]}
    assert variables["VOICE_POLICY_PATH"] == POLICY_PATH
    assert variables["VOICE_SETTINGS_PATH"] == SETTINGS_PATH
    assert {POLICY_PATH, SETTINGS_PATH} <= {each["mountPath"] for each in container["volumeMounts"]}
    (settings,) = (
        each["data"]
        for each in of_kind("prod", "ConfigMap")
        if each["metadata"]["name"] == f"{PYTHON_SERVICE}-settings"
    )
    (tmp_path / "settings.json").write_text(settings["settings.json"])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    read = load_settings(tmp_path)
    assert ports == {"http": read.http_port, "grpc": read.grpc_port}


def test_the_runtime_reads_the_rendered_settings(tmp_path: Path) -> None:
    for config_map in of_kind("prod", "ConfigMap"):
        for name, text in config_map["data"].items():
            if name == "settings.json":
                (tmp_path / name).write_text(text)
                assert load_settings(tmp_path).service == config_map["metadata"]["name"].removesuffix("-settings")
