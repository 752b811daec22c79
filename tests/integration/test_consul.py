from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from components.consul.servers import Consul
from stack.model.settings import ROOT
from tests.integration.consul_servers import (
    Keys,
    Server,
    new_gossip_key,
    prepared_servers,
    running_servers,
    wait_until,
)
from tests.platforms import platform
from tests.stack.voiceassistant.exported_metrics import CONSUL
from tests.stack.voiceassistant.tiers.real_servers import files

pytestmark = pytest.mark.integration
RULES = 'key_prefix "conversation-service/" { policy = "write" }'


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def servers(consul: Path, keys: Keys) -> Iterator[list[Server]]:
    with running_servers(consul, "prod", 3, keys) as running:
        yield running


@pytest.fixture(scope="module")
def service_token(servers: list[Server], keys: Keys) -> str:
    server = servers[0]
    status, policy = server.ask("acl/policy", keys.token, {"Name": "conversation-service", "Rules": RULES})
    assert status == 200, policy
    status, token = server.ask("acl/token", keys.token, {"Policies": [{"ID": policy["ID"]}]})
    assert status == 200, token
    secret: str = token["SecretID"]
    # The leader replicates tokens to the other servers with a delay.
    wait_until(lambda: all(each.ask("acl/token/self", secret)[0] == 200 for each in servers), server)
    return secret


def test_three_servers_form_one_cluster_and_pass_the_readiness_probe(servers: list[Server]) -> None:
    status, peers = servers[0].ask("status/peers")
    assert (status, len(peers)) == (200, 3)
    (leader,) = {server.ask("status/leader")[1] for server in servers}
    assert leader in peers
    assert all(server.ready() for server in servers)


def test_consul_listens_only_for_http_and_for_other_consul_servers(servers: list[Server], keys: Keys) -> None:
    listening = servers[0].ask("agent/self", keys.token)[1]["DebugConfig"]
    assert [listening[kind] for kind in ("DNSAddrs", "GRPCAddrs", "GRPCTLSAddrs", "HTTPSAddrs")] == [[], [], [], []]
    assert [listening[kind] for kind in ("HTTPAddrs", "SerfBindAddrWAN")] == [
        [f"tcp://{servers[0].address}:{servers[0].ports['http']}"],
        "",
    ]


def test_a_client_without_a_token_can_neither_read_nor_change_anything(servers: list[Server], keys: Keys) -> None:
    assert servers[0].ask("kv/conversation-service/flag", keys.token, "on") == (200, True)
    assert servers[0].ask("kv/conversation-service/flag")[0] == 403
    assert servers[0].ask("kv/conversation-service/flag", body="off")[0] == 403
    assert servers[0].ask("catalog/nodes") == (200, [])
    assert servers[0].ask("agent/self")[0] == 403
    assert servers[0].ask("acl/tokens")[0] == 403


def test_a_token_of_a_service_has_exactly_the_permissions_of_its_policy(
    servers: list[Server], service_token: str
) -> None:
    assert servers[1].ask("kv/conversation-service/mode", service_token, "fast") == (200, True)
    assert servers[2].ask("kv/conversation-service/mode", service_token)[0] == 200
    assert servers[0].ask("kv/agent-engine/mode", service_token, "fast")[0] == 403
    assert servers[0].ask("kv/agent-engine/mode", service_token)[0] == 403
    assert servers[0].ask("acl/tokens", service_token)[0] == 403
    assert servers[0].ask("snapshot", service_token)[0] == 403


DECLARED = {
    service.name: [
        (
            (f"{service.name}-grpc.voice-apps.svc.cluster.local", service.grpc_port),
            (f"{service.name}.voice-apps.svc.cluster.local", service.http_port),
        )
    ]
    for service in platform("dev").graph.services
}


def answer(server: Server, path: str, token: str) -> Any:
    """The server's answer, as soon as the server has a leader and knows the token."""
    answers: list[Any] = []

    def answered() -> bool:
        status, body = server.ask(path, token)
        answers.append(body)
        return bool(status == 200)

    wait_until(answered, server)
    return answers[-1]


def addresses(entry: dict[str, Any]) -> tuple[tuple[str, int], tuple[str, int]]:
    """The gRPC address and the HTTP address of an entry in the catalogue."""
    http = entry["ServiceTaggedAddresses"]["http"]
    return (entry["ServiceAddress"], entry["ServicePort"]), (http["Address"], http["Port"])


def catalogue(server: Server, token: str) -> dict[str, Any]:
    """The addresses of each service's entries, without Consul itself.

    Consul can remove a service after it listed the names. This service then has no entries.
    """
    names = answer(server, "catalog/services", token).keys() - {"consul"}
    return {name: [addresses(entry) for entry in answer(server, f"catalog/service/{name}", token)] for name in names}


def restart(server: Server) -> None:
    """Restart the server, so that it registers the services now and not at the next anti-entropy run."""
    server.stop()
    server.start()
    wait_until(server.ready, server)


def test_the_catalogue_lists_the_declared_services_after_their_registration_is_permitted(
    consul: Path, keys: Keys
) -> None:
    with running_servers(consul, "dev", 1, keys) as (server,):
        wait_until(lambda: "Service registration blocked by ACLs" in server.log, server)
        assert catalogue(server, keys.token) == {}
        server.permit()
        restart(server)
        wait_until(lambda: catalogue(server, keys.token) == DECLARED, server)
        server.permit()
        assert catalogue(server, keys.token) == DECLARED
        assert server.ask("catalog/services") == (200, {})
        assert server.ask("catalog/service/agent-engine") == (200, [])
        stranger = {"Name": "stranger", "Port": 80}
        assert server.ask("agent/service/register", keys.registration, stranger)[0] == 403
        assert server.ask("kv/agent-engine/mode", keys.registration, "fast")[0] == 403
        assert server.ask("acl/tokens", keys.registration)[0] == 403


def test_consul_reloads_added_and_removed_services_without_a_restart(consul: Path, keys: Keys) -> None:
    rendered = files("dev", "consul-services")
    services = json.loads(rendered["services.json"])["services"]
    fewer = json.dumps({"services": [each for each in services if each["name"] != "agent-engine"]})
    with running_servers(consul, "dev", 1, keys) as (server,):
        server.permit()
        restart(server)
        wait_until(lambda: catalogue(server, keys.token) == DECLARED, server)
        server.mount_services({**rendered, "services.json": fewer})
        wait_until(lambda: "agent-engine" not in catalogue(server, keys.token), server)
        server.mount_services(rendered)
        wait_until(lambda: catalogue(server, keys.token) == DECLARED, server)


def test_consul_accepts_rotated_tokens_beside_the_old_ones_until_their_deletion(consul: Path) -> None:
    old = Keys()
    with running_servers(consul, "dev", 1, old) as (server,):
        server.permit()
        new = Keys(gossip=old.gossip)
        server.prepare(new)
        restart(server)
        wait_until(lambda: server.knows(new.token), server)
        server.permit()
        restart(server)
        wait_until(lambda: catalogue(server, new.token) == DECLARED, server)
        for token in (old.token, old.registration, old.metrics):
            accessor = server.ask("acl/token/self", token)[1]["AccessorID"]
            assert server.ask(f"acl/token/{accessor}", new.token, method="DELETE") == (200, True)
            assert not server.knows(token)


def test_each_server_registers_the_services(servers: list[Server], keys: Keys) -> None:
    servers[0].permit()
    for server in servers:
        restart(server)

    def nodes() -> set[str]:
        return {entry["Node"] for entry in answer(servers[0], "catalog/service/agent-engine", keys.token)}

    wait_until(lambda: nodes() == {"consul-1", "consul-2", "consul-3"}, servers[0])


def exposition(server: Server, token: str) -> str:
    """The metrics that Prometheus reads with the token, as OpenMetrics. Empty if the server refuses the token."""
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/openmetrics-text;version=1.0.0"}
    asked = Request(f"{server.url}{Consul.scrape.path}", headers=headers)  # noqa: S310 - loopback
    try:
        with urlopen(asked, timeout=20) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())
    except HTTPError as refused:
        assert refused.code == HTTPStatus.FORBIDDEN, refused
        return ""


def test_the_token_of_prometheus_reads_metrics_and_nothing_else(servers: list[Server], keys: Keys) -> None:
    assert exposition(servers[0], keys.registration) == ""
    servers[0].permit()

    def seen() -> set[str]:
        lines = "".join(exposition(server, keys.metrics) for server in servers).splitlines()
        return {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}

    wait_until(lambda: CONSUL.keys() <= seen(), servers[0])
    series = [line for line in exposition(servers[0], keys.metrics).splitlines() if not line.startswith("#")]
    assert len(series) <= Consul.scrape.series
    assert servers[0].ask("kv/agent-engine/mode", keys.metrics)[0] == 403
    assert servers[0].ask("agent/service/register", keys.metrics, {"Name": "stranger", "Port": 80})[0] == 403
    assert servers[0].ask("acl/tokens", keys.metrics)[0] == 403


def test_gossip_is_encrypted_with_only_the_key_of_the_secret(servers: list[Server], keys: Keys) -> None:
    status, rings = servers[0].ask("operator/keyring", keys.token)
    assert status == 200
    assert [set(ring["Keys"]) for ring in rings if not ring["WAN"]] == [{keys.gossip}]


def test_the_documented_commands_rotate_the_gossip_key(consul: Path, servers: list[Server], keys: Keys) -> None:
    (row,) = (line for line in (ROOT / "docs" / "deploy.md").read_text().splitlines() if "`gossip-key`" in line)
    options = re.findall(r"`(?:consul keyring )?(-\w+) (NEW|OLD)`", row)
    assert options == [("-install", "NEW"), ("-use", "NEW"), ("-remove", "OLD")]
    rotated = replace(keys, gossip=new_gossip_key())
    for option, key in options:
        command = [str(consul), "keyring", option, {"NEW": rotated.gossip, "OLD": keys.gossip}[key]]
        variables = {"CONSUL_HTTP_ADDR": servers[0].url, "CONSUL_HTTP_TOKEN": keys.token}
        subprocess.run(command, check=True, capture_output=True, env=variables)
    keys.gossip = rotated.gossip
    for server in servers:
        server.prepare(rotated)
        restart(server)
    rings = answer(servers[0], "operator/keyring", keys.token)
    assert [set(ring["Keys"]) for ring in rings if not ring["WAN"]] == [{rotated.gossip}]


def test_a_server_with_another_gossip_key_cannot_join(consul: Path, servers: list[Server], keys: Keys) -> None:
    with prepared_servers(consul, "prod", 4) as others:
        stranger = others[-1]
        stranger.joined = servers[0].joined
        stranger.prepare(Keys(gossip=new_gossip_key(), token=keys.token), retry_interval="1s")
        stranger.start()
        wait_until(lambda: "No installed keys could decrypt the message" in servers[0].log, stranger)
        assert not stranger.ready()
    members = servers[0].ask("agent/members", keys.token)[1]
    assert {member["Addr"] for member in members} == {server.address for server in servers}


def test_two_of_three_servers_accept_writes_after_the_loss_of_the_leader(servers: list[Server], keys: Keys) -> None:
    leader = servers[0].ask("status/leader")[1].partition(":")[0]
    (lost,) = (server for server in servers if server.address == leader)
    first, second = (server for server in servers if server is not lost)
    lost.stop()
    try:
        wait_until(lambda: first.ask("kv/after", keys.token, "loss") == (200, True), first)
        assert second.ask("kv/after", keys.token)[0] == 200
    finally:
        lost.start()
        wait_until(lost.ready, lost)


@pytest.mark.parametrize("misspelt", [{"bootstrap_expct": 1}, {"acl": {"default_polcy": "deny"}}], ids=str)
def test_a_misspelt_key_of_the_configuration_is_refused(consul: Path, misspelt: dict[str, object], keys: Keys) -> None:
    with prepared_servers(consul, "dev", 1) as (server,):
        server.prepare(keys, **misspelt)
        server.start()
        assert server.process is not None
        assert server.process.wait(60) != 0
        assert "invalid config key" in server.log


def test_devs_single_server_elects_itself(consul: Path, keys: Keys) -> None:
    with running_servers(consul, "dev", 1, keys) as (server,):
        assert server.ask("kv/flag", keys.token, "on") == (200, True)
