from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from voice_policies import Bytes

from components.consul.access import METRICS, SECRET
from components.consul.catalogue import CatalogueService
from components.consul.servers import GOSSIP_PORT, HTTP_PORT, RPC_PORT, RUN_PATH, Consul
from components.container import Image
from components.links import Link, Links, peer
from components.network_policy import NAME_LABEL, Peer
from tests.stack.voiceassistant.tiers.real_servers import Place
from tests.toy import SIZING

KNOWN = {
    "auto_reload_config",
    "server", "datacenter", "data_dir", "bootstrap_expect", "retry_join", "client_addr", "leave_on_terminate",
    "disable_update_check", "ports", "acl", "telemetry",
}  # fmt: skip
"""Keys that hashicorp/consul-k8s sets (charts/consul/templates/server-config-configmap.yaml), and `auto_reload_config`,
which `tests/integration` tests with Consul itself."""


SERVERS = Peer(namespace="stores", name="consul", ports=(RPC_PORT, GOSSIP_PORT), udp_ports=(GOSSIP_PORT,))
SNAPSHOTS = peer("stores", "consul-snapshot")
HTTP = SERVERS.model_copy(update={"ports": (HTTP_PORT,), "udp_ports": ()})


def consul(servers: int = 3) -> Consul:
    return Consul(
        name="consul",
        namespace="stores",
        image=Image(reference="consul:1"),
        sizing=SIZING,
        links=Links([Link(peer("stores", "consul"), SERVERS), Link(SNAPSHOTS, HTTP)]),
        servers=servers,
        storage=Bytes("1Gi"),
        services=(CatalogueService(name="orders", grpc_host="g", grpc_port=9000, http_host="h", http_port=8080),),
        bucket_url="https://objects.example.com/backups" if servers > 1 else None,
    )


def rendered(component: Consul, kind: str) -> list[dict[str, Any]]:
    return [dict(resource) for resource in component.resources() if resource["kind"] == kind]


@pytest.mark.parametrize("servers", [1, 3], ids=["one-server", "three-servers"])
def test_bootstrap_expect_is_the_number_of_replicas(servers: int) -> None:
    configuration = json.loads(consul(servers).files["consul.json"])
    assert configuration.keys() == KNOWN
    (found,) = rendered(consul(servers), "StatefulSet")
    assert configuration["bootstrap_expect"] == found["spec"]["replicas"] == servers
    assert configuration["retry_join"] == [f"{found['spec']['serviceName']}.stores.svc.cluster.local"]


@pytest.mark.parametrize("servers", [1, 3], ids=["one-server", "three-servers"])
def test_the_servers_deny_by_default(servers: int) -> None:
    configuration = json.loads(consul(servers).files["consul.json"])
    assert configuration["acl"] == {"enabled": True, "default_policy": "deny", "enable_token_persistence": True}


@pytest.mark.parametrize("servers", [1, 3], ids=["one-server", "three-servers"])
def test_the_servers_run_on_different_nodes(servers: int) -> None:
    (found,) = rendered(consul(servers), "StatefulSet")
    affinity = found["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" in affinity


def test_an_even_number_of_servers_is_refused() -> None:
    with pytest.raises(ValidationError, match="servers is 4: expected an odd number"):
        consul(servers=4)


def test_the_init_script_writes_the_metrics_token_into_a_separate_file(tmp_path: Path) -> None:
    place = Place(tmp_path, (SECRET.path, METRICS.path, RUN_PATH))
    for secret in (SECRET, METRICS):
        for key in secret.keys:
            place.write(f"{secret.path}/{key}", f"the {key}")
    script = place.moved(consul().files["write-secrets.sh"])
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
    assert (place.inside(RUN_PATH) / "metrics-token").read_text() == "the token"


def test_only_the_servers_may_gossip_over_tcp_and_udp() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in rendered(consul(), "NetworkPolicy")}
    servers, snapshots = policies["consul"], policies["consul-snapshot"]
    rules = {rule["from"][0]["podSelector"]["matchLabels"][NAME_LABEL]: rule for rule in servers["ingress"]}
    assert rules.keys() == {"consul", "consul-snapshot"}
    ports = {(port["port"], port["protocol"]) for port in rules["consul"]["ports"]}
    assert ports == {(8300, "TCP"), (8301, "TCP"), (8301, "UDP")}
    assert servers["egress"][0]["ports"] == rules["consul"]["ports"]
    assert [port["port"] for port in rules["consul-snapshot"]["ports"]] == [8500]
    assert "ingress" not in snapshots


def test_without_a_bucket_there_are_no_jobs_for_snapshots_and_restore() -> None:
    names = {job["metadata"]["name"]: job["spec"]["suspend"] for job in rendered(consul(), "CronJob")}
    assert names == {"consul-snapshot": False, "consul-restore": True}
    assert rendered(consul(servers=1), "CronJob") == []


def test_the_jobs_read_the_token_and_never_the_gossip_key() -> None:
    for job in rendered(consul(), "CronJob"):
        volumes = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
        secrets = {each["secret"]["secretName"]: each["secret"]["items"] for each in volumes if "secret" in each}
        assert secrets.keys() == {"consul-server", "consul-backup"}
        assert [item["key"] for item in secrets["consul-server"]] == ["management-token"]


def test_each_secret_of_servers_and_jobs_is_declared_once_with_every_key() -> None:
    secrets = {secret.name: set(secret.keys) for secret in consul().secrets}
    assert secrets == {
        "consul-server": {"gossip-key", "management-token", "registration-token"},
        "consul-metrics": {"token"},
        "consul-backup": {"access-key-id", "secret-access-key"},
    }
