from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from components import images
from components.links import Link, Links, peer
from components.network_policy import AddressBlock, Peer
from components.observability.alertmanager import GOSSIP_PORT
from components.valkey.server import Valkey
from stack.audit import network
from stack.audit.network import title
from stack.audit.rendered import rendered
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.platform import Platform
from stack.model.tenant import Builder, Tier
from stack.voiceassistant import TENANT
from tests import toy
from tests.platforms import real_environment
from tests.small import small_platform
from tests.stack.audit.rule_findings import STORE, verdict

ORDERS = peer("shop", "orders")
PRICES_HTTP = Peer(namespace="shop", name="prices", ports=(8080,))


class Tampered(Platform):
    def __init__(self, *, ingress_open: bool = False, egress_open: bool = False, egress_closed: bool = False) -> None:
        super().__init__(toy.TENANT, toy.ENVIRONMENT)
        declared = Platform(toy.TENANT, toy.ENVIRONMENT)
        opened = Links([*declared.links, Link(ORDERS, PRICES_HTTP)])
        links: dict[str, Links] = {}
        if egress_closed:
            links["orders"] = Links(link for link in declared.links if link.target.name != "stock")
        if egress_open:
            links["orders"] = opened
        if ingress_open:
            links["prices"] = opened
        self.__dict__["components"] = tuple(
            component.model_copy(update={"links": links[component.name]}) if component.name in links else component
            for component in declared.components
        )


def test_n01_finds_a_declared_call_that_is_denied() -> None:
    assert verdict("N01", Tampered()).text == "holds"
    (found,) = verdict("N01", Tampered(egress_closed=True)).findings
    assert found.path == "orders → stock:6379"


def test_n02_finds_an_undeclared_connection_only_if_both_ends_permit_it() -> None:
    assert verdict("N02", Tampered(ingress_open=True)).findings == ()
    assert verdict("N02", Tampered(egress_open=True)).findings == ()
    (found,) = verdict("N02", Tampered(ingress_open=True, egress_open=True)).findings
    assert found.path == "orders → prices:8080"


def leaking(_graph: CallGraph, environment: Environment, _links: Links) -> Iterator[Builder]:
    anywhere = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=(443,))
    yield partial(
        Valkey,
        name="idle",
        namespace="stores",
        image=environment.third_party_image(images.VALKEY),
        sizing=toy.SIZING,
        users=(),
        links=Links([Link(peer("stores", "idle"), anywhere)]),
    )


def test_n02_finds_open_egress_of_pods_that_no_link_names() -> None:
    tenant = replace(toy.TENANT, tiers=(*toy.TENANT.tiers, Tier(leaking)))
    paths = {found.path for found in verdict("N02", Platform(tenant, toy.ENVIRONMENT)).findings}
    assert "idle → the internet:443" in paths


def changed(platform: Platform, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None]) -> Platform:
    found = rendered(platform)
    policies = deepcopy(found.network_policies)
    for policy in policies:
        change(policy)
    changed_policies = replace(found, by_kind={**found.by_kind, "NetworkPolicy": policies})
    monkeypatch.setattr(network, "rendered", lambda _platform: changed_policies)
    return platform


def opened(policy: Any, *ports: dict[str, int]) -> None:
    if policy["metadata"]["name"] == "orders":
        rule = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], **({"ports": [*ports]} if ports else {})}
        policy["spec"]["egress"].append(rule)


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        (({"port": 443, "endPort": 8443},), 444),
        (({"port": 80, "endPort": 81},), 81),
        (({"port": 9999},), 9999),
        ((), 80),
    ],
)
def test_n02_finds_an_undeclared_port_that_an_egress_rule_permits(
    ports: tuple[dict[str, int], ...], found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_platform = changed(Platform(toy.TENANT, toy.ENVIRONMENT), monkeypatch, lambda policy: opened(policy, *ports))
    paths = {each.path for each in network.permitted_is_declared(toy_platform) if each}
    assert f"orders → the internet:{found}" in paths


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_n01_finds_a_denied_link_between_the_pods_of_one_component(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_gossip(policy: Any) -> None:
        if policy["metadata"]["name"] == "alertmanager":
            rules = policy["spec"][direction]
            rules[:] = [rule for rule in rules if {"port": GOSSIP_PORT, "protocol": "TCP"} not in rule["ports"]]

    production = changed(Platform(TENANT, real_environment("prod")), monkeypatch, without_gossip)
    (found,) = filter(None, network.declared_is_permitted(production))
    assert found.path == f"alertmanager → alertmanager:{GOSSIP_PORT}"


def test_findings_show_an_undeclared_pods_name_without_its_namespace() -> None:
    assert title(small_platform(STORE), "elsewhere", "guest") == "guest"
