"""Consul's servers as rendered: their files, quorum and isolation. `tests/integration` starts them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.consul.access import SECRET
from components.consul.servers import RUN_PATH, Consul
from components.network_policy import NAME_LABEL
from tests.platforms import of_kind, platform
from tests.stack.voiceassistant.tiers.real_servers import Place

BOTH = ("dev", "prod")

KNOWN = {
    "server", "datacenter", "data_dir", "bootstrap_expect", "retry_join", "client_addr", "leave_on_terminate",
    "disable_update_check", "ports", "acl",
}  # fmt: skip
"""Keys that hashicorp/consul-k8s gives its servers, in charts/consul/templates/server-config-configmap.yaml."""


def consul(environment: str) -> Consul:
    (found,) = (each for each in platform(environment).components if isinstance(each, Consul))
    return found


@pytest.mark.parametrize(("environment", "servers"), [("dev", 1), ("staging", 3), ("prod", 3)])
def test_the_servers_expect_as_many_as_there_are_and_deny_by_default(environment: str, servers: int) -> None:
    configuration = json.loads(consul(environment).files["consul.json"])
    assert configuration.keys() == KNOWN
    (found,) = (each for each in of_kind(environment, "StatefulSet") if each["metadata"]["name"] == "consul")
    assert configuration["bootstrap_expect"] == found["spec"]["replicas"] == servers
    assert configuration["retry_join"] == [f"{found['spec']['serviceName']}.voice-data.svc.cluster.local"]
    assert configuration["acl"] == {"enabled": True, "default_policy": "deny", "enable_token_persistence": True}
    affinity = found["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in affinity


def test_servers_that_cannot_form_a_better_quorum_are_refused() -> None:
    with pytest.raises(ValidationError, match="servers is 4: an even number survives no more losses than 3"):
        Consul.model_validate({**dict(consul("prod")), "servers": 4})


def test_key_and_token_reach_the_server_by_a_file_of_their_own(tmp_path: Path) -> None:
    place = Place(tmp_path, (SECRET.path, RUN_PATH))
    for key in SECRET.keys:
        place.write(f"{SECRET.path}/{key}", f"the {key}")
    script = place.moved(consul("prod").files["write-secrets.sh"])
    subprocess.run(["/bin/sh", "-c", script], check=True)
    assert json.loads((place.inside(RUN_PATH) / "secrets.json").read_text()) == {
        "encrypt": "the gossip-key",
        "acl": {
            "tokens": {
                "initial_management": "the management-token",
                "agent": "the management-token",
                "config_file_service_registration": "the registration-token",
            }
        },
    }


def test_gossip_is_open_among_the_servers_alone_over_udp_too() -> None:
    (found,) = (each for each in of_kind("prod", "NetworkPolicy") if each["metadata"]["name"] == "consul")
    rules = {rule["from"][0]["podSelector"]["matchLabels"][NAME_LABEL]: rule for rule in found["spec"]["ingress"]}
    assert rules.keys() == {"consul", "consul-snapshot", "blackbox-exporter"}
    rule = rules["consul"]
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {(8300, "TCP"), (8301, "TCP"), (8301, "UDP")}
    assert found["spec"]["egress"][0]["ports"] == rule["ports"]
    assert [port["port"] for port in rules["consul-snapshot"]["ports"]] == [8500]
    assert rules["blackbox-exporter"]["ports"] == rules["consul-snapshot"]["ports"]


def test_dev_which_has_no_bucket_makes_no_snapshots() -> None:
    jobs = {environment: [job["metadata"]["name"] for job in of_kind(environment, "CronJob")] for environment in BOTH}
    assert {"consul-snapshot", "consul-restore"} <= set(jobs["prod"])
    assert not any(name.startswith("consul") for name in jobs["dev"])


def test_the_jobs_read_the_token_and_never_the_gossip_key() -> None:
    for job in of_kind("prod", "CronJob"):
        if job["metadata"]["name"].startswith("consul"):
            volumes = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
            secrets = {each["secret"]["secretName"]: each["secret"]["items"] for each in volumes if "secret" in each}
            assert secrets.keys() == {"consul-server", "consul-backup"}
            assert [item["key"] for item in secrets["consul-server"]] == ["management-token"]
