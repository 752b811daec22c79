from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from components import images
from components.links import Link, Links
from components.network_policy import AddressBlock, Peer
from components.node import Dependency, Gateway, Host, InCluster, Service
from components.scrape import CONNECTS, Scrape
from components.valkey.server import PORT, Valkey
from stack.audit import audit
from stack.model.call_graph import CallGraph
from stack.model.egress import egress_port
from stack.model.environments import Environment
from stack.model.links import call_links, scrape_link
from stack.model.platform import Platform
from stack.model.tenant import Builder, Tier
from stack.output.render import Index, rendered_files
from tests import toy
from tests.platforms import DAY, ENVIRONMENTS, platform

CLIENT = Peer(namespace="shop", name="client", ports=())
REDIS = {space: Peer(namespace=space, name="redis", ports=(PORT,)) for space in ("left", "right")}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_exactly_the_declared_calls_are_links(environment: str) -> None:
    graph = platform(environment).graph
    expected = set()
    for edge in graph.edges:
        source, callee = (edge.caller.namespace, edge.caller.name), edge.callee
        if isinstance(callee, Service):
            port = callee.http_port if isinstance(edge.caller, Gateway) else callee.grpc_port
            expected.add((*source, callee.namespace, callee.name, port))
        elif isinstance(callee, Dependency):
            for address in callee.addresses:
                if isinstance(address, Host):
                    expected.add((*source, "voice-egress", address.egress, egress_port(edge.caller.name)))
                elif isinstance(address, InCluster):
                    expected.add((*source, address.namespace, address.service, address.port))
    found = [
        (link.source.namespace, link.source.name, link.target.namespace, link.target.name, port)
        for link in call_links(graph)
        if isinstance(link.source, Peer) and isinstance(link.target, Peer)
        for port in link.target.ports
    ]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_pods_of_one_name_in_two_namespaces_have_different_peers() -> None:
    other = CLIENT.model_copy(update={"name": "other"})
    links = Links([Link(CLIENT, REDIS["left"]), Link(other, REDIS["right"])])
    assert [end.name for end in links.ingress("left", "redis")] == ["client"]
    assert [end.name for end in links.ingress("right", "redis")] == ["other"]
    assert links.egress("shop", "client") == (REDIS["left"],)


def test_an_admitted_source_has_the_ports_of_its_target() -> None:
    gossip = Peer(namespace="left", name="redis", ports=(1, 2), udp_ports=(2,))
    anywhere = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=())
    admitted = Links([Link(CLIENT, gossip), Link(anywhere, gossip)]).ingress("left", "redis")
    assert admitted == (
        CLIENT.model_copy(update={"ports": (1, 2), "udp_ports": (2,)}),
        anywhere.model_copy(update={"ports": (1, 2)}),
    )


def test_a_probed_server_is_linked_to_the_prober_and_a_server_with_metrics_to_prometheus() -> None:
    read = scrape_link(toy.SITE, REDIS["left"], Scrape(port=9091, path="/pushed"))
    asked = scrape_link(toy.SITE, REDIS["left"], Scrape.probe(CONNECTS, PORT))
    assert (read.source.name, read.target.ports) == ("prometheus", (9091,))
    assert (asked.source.name, asked.target.ports) == ("prober", (PORT,))


def twins(_graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    for namespace in ("shop", "stores"):
        yield partial(
            Valkey,
            name="redis",
            namespace=namespace,
            image=environment.third_party_image(images.VALKEY),
            sizing=toy.SIZING,
            users=(),
            links=links,
        )


def twin_links(_graph: CallGraph, _environment: Environment) -> Iterator[Link]:
    for namespace, client in (("shop", "orders"), ("stores", "prices")):
        source = Peer(namespace="shop", name=client, ports=())
        yield Link(source, Peer(namespace=namespace, name="redis", ports=(PORT,)))


def test_the_audit_distinguishes_pods_of_the_same_name() -> None:
    tenant = replace(toy.TENANT, tiers=(*toy.TENANT.tiers, Tier(twins, twin_links)))
    assert {found.rule.id: found.text for found in audit(Platform(tenant, toy.ENVIRONMENT), on=DAY)}["N02"] == "holds"
    swapped = Tier(lambda graph, environment, links: twins(graph, environment, mirrored(links)), twin_links)
    crossed = Platform(replace(toy.TENANT, tiers=(*toy.TENANT.tiers, swapped)), toy.ENVIRONMENT)
    found = {each.path for verdict in audit(crossed, on=DAY) if verdict.rule.id == "N01" for each in verdict.findings}
    assert found == {"orders → shop/redis:6379", "prices → stores/redis:6379"}


def test_components_of_one_name_are_rendered_into_one_file() -> None:
    tenant = replace(toy.TENANT, tiers=(*toy.TENANT.tiers, Tier(twins, twin_links)))
    files = dict(rendered_files(Platform(tenant, toy.ENVIRONMENT), Index("dev")))
    assert files["manifests/20-data/redis.yaml"].count("kind: StatefulSet") == len(REDIS)


def mirrored(links: Links) -> Links:
    there = {"shop": "stores", "stores": "shop"}
    return Links(
        replace(link, target=link.target.model_copy(update={"namespace": there[link.target.namespace]}))
        if isinstance(link.target, Peer) and link.target.name == "redis"
        else link
        for link in links
    )
