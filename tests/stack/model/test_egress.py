from __future__ import annotations

import pytest
from pydantic import ValidationError
from voice_policies import InvalidInputError, Ratio

from components.node import Dependency, External, Host, Service
from components.operation import hard, operation, stage
from stack.model.egress import PORTS, allow_lists, egress_port
from stack.voiceassistant import TENANT
from tests.small import graph_of, service, small_platform
from tests.toy import SITE

READ = operation("read", p95="10ms", deadline="100ms")


def outside(name: str, *hosts: Host | External) -> Dependency:
    return Dependency(
        name=name,
        kind="provider",
        purpose="exists for a test",
        protocol="https",
        addresses=hosts,
        availability=Ratio("99.5%"),
        operations=(READ,),
    )


def calling(name: str, *callees: str) -> Service:
    calls = stage(*(hard(f"{callee}.read", "idempotent") for callee in callees))
    return service(name, operation("run", calls, p95="1s", deadline="2s"))


def host(name: str, port: int = 443, egress: str = "egress-proxy-a") -> Host:
    return Host(host=name, port=port, egress=egress)


def test_a_port_depends_only_on_the_callers_name() -> None:
    assert (egress_port("model-adapter"), egress_port("voice-engine")) == (20480, 27715)
    assert all(egress_port(each.name) in PORTS for each in TENANT.graph.services)


def test_a_caller_may_reach_its_declared_hosts_through_the_proxy_of_each_host() -> None:
    pair = outside("pair", host("a.example.com"), host("b.example.com", egress="egress-proxy-b"))
    other = outside("other", host("c.example.com"))
    graph = graph_of(calling("one", "pair"), calling("two", "pair", "other"), pair, other)
    found = {
        (proxy, allowed.caller): [each.host for each in allowed.hosts]
        for proxy, lists in allow_lists(graph).items()
        for allowed in lists
    }
    assert found == {
        ("egress-proxy-a", "one"): ["a.example.com"],
        ("egress-proxy-a", "two"): ["a.example.com", "c.example.com"],
        ("egress-proxy-b", "one"): ["b.example.com"],
        ("egress-proxy-b", "two"): ["b.example.com"],
    }


def test_if_one_host_of_a_callee_has_a_proxy_the_settings_contain_the_address_to_dial_of_each_host() -> None:
    near = External(host="near.example.com", port=443, network="10.9.0.0/16")
    mixed, direct = outside("mixed", near, host("far.example.com")), outside("direct", near)
    [component] = small_platform(calling("one", "mixed", "direct"), mixed, direct).microservices
    found = {each.name: (each.hosts, each.via) for each in component.settings.connections}
    proxy = f"egress-proxy-a.{SITE.egress}.svc.cluster.local:{egress_port('one')}"
    assert found == {
        "mixed": (("near.example.com:443", "far.example.com:443"), ("near.example.com:443", proxy)),
        "direct": (("near.example.com:443",), ()),
    }


def test_equal_ports_and_ambiguous_hosts_are_refused_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stack.model.egress.PORTS", range(20_000, 20_001))
    first, second = outside("first", host("a.example.com")), outside("second", host("a.example.com", 8443))
    graph = graph_of(calling("one", "first", "second"), calling("two", "first"), first, second)
    with pytest.raises(InvalidInputError) as refused:
        allow_lists(graph)
    one, two = (graph.nodes[name].location for name in ("one", "two"))
    assert str(refused.value).splitlines() == [
        "tests: 2 faults",
        f"  {one} and {two}: one and two: have the same egress port, 20000; rename one of them",
        (
            f"  {one}: one → a.example.com: has ports 443 and 8443 through egress-proxy-a;"
            " expected one port for each host name"
        ),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "*.example.com",
        "*",
        "example",
        "a.example.com:443",
        "203.0.113.1/24",
        "https://api.example.com",
        "api.example.com.",
        pytest.param("", id="empty"),
    ],
)
def test_a_host_that_is_no_complete_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="host"):
        host(name)
