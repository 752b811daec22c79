from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from stack.audit.network import declared, endpoints
from stack.model.network_connections import Connection, Endpoint, permitted
from stack.output.render import manifest
from tests.platforms import ENVIRONMENTS, platform

WEB = Endpoint("web", "apps", {"app": "web"}, (80,), governed=True)
API = Endpoint("api", "apps", {"app": "api"}, (8080, 9090), governed=True)
FAR = Endpoint("far", "other", {"app": "api"}, (8080,))
OUTSIDE = Endpoint("outside", ip="203.0.113.1", ports=(443,))
ALL = (WEB, API, FAR, OUTSIDE)


def policy(pods: dict[str, Any], **rules: Any) -> dict[str, Any]:
    types = [name.capitalize() for name in rules]
    return {
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "apps", "name": "p"},
        "spec": {"podSelector": pods, "policyTypes": types, **rules},
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_yaml_permits_exactly_the_declared_connections(environment: str) -> None:
    looked_at = platform(environment)
    text = "".join(manifest(resources, environment) for _, resources in looked_at.resources)
    everyone = endpoints(looked_at)
    found = set(permitted(yaml.safe_load_all(text), everyone.values()))
    ours = {each for each in found if everyone[each.source].governed or everyone[each.target].governed}
    assert ours == declared(looked_at)
    assert len(ours) > 100


def connections(*policies: dict[str, Any]) -> set[Connection]:
    return set(permitted(policies, ALL))


def test_without_policies_everything_is_permitted() -> None:
    # The pods of each endpoint reach all four endpoints, on their one or two ports.
    assert len(connections()) == 4 * (1 + 2 + 1 + 1)


def test_a_policy_without_rules_denies_only_its_direction() -> None:
    found = connections(policy({}, ingress=[]))
    assert not {each for each in found if each.target in {"web", "api"}}
    assert Connection("web", "far", 8080) in found


def test_several_policies_permit_the_union_of_their_rules() -> None:
    first = policy(
        {"matchLabels": {"app": "api"}},
        ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]}],
    )
    second = policy(
        {"matchLabels": {"app": "api"}}, ingress=[{"from": [{"podSelector": {}}], "ports": [{"port": 9090}]}]
    )
    assert {each for each in connections(first, second) if each.target == "api"} == {
        Connection("web", "api", 8080),
        Connection("web", "api", 9090),
        Connection("api", "api", 9090),  # from one pod of api to another
    }


def test_a_pod_selector_without_a_namespace_selects_in_the_policys_own_namespace() -> None:
    found = connections(
        policy({"matchLabels": {"app": "web"}}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}])
    )
    assert {each.source for each in found if each.target == "web"} == {"api"}


def test_a_namespace_selector_reaches_other_namespaces() -> None:
    other = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}
    found = connections(policy({"matchLabels": {"app": "web"}}, ingress=[{"from": [other]}]))
    assert {each.source for each in found if each.target == "web"} == {"far"}


def test_an_address_block_reaches_hosts_and_no_pods() -> None:
    found = connections(
        policy({}, egress=[{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 400, "endPort": 500}]}])
    )
    assert {each for each in found if each.source == "web"} == {Connection("web", "outside", 443)}


def test_a_rule_for_udp_permits_no_tcp() -> None:
    found = connections(policy({}, egress=[{"ports": [{"port": 443, "protocol": "UDP"}]}]))
    assert not {each for each in found if each.source in {"web", "api"}}


def test_an_address_that_the_block_excepts_is_not_reached() -> None:
    block = {"cidr": "203.0.113.0/24", "except": ["203.0.113.0/30"]}
    found = connections(policy({}, egress=[{"to": [{"ipBlock": block}]}]))
    assert not {each for each in found if each.source in {"web", "api"}}


def test_a_port_name_is_looked_up_in_the_target() -> None:
    named = replace(API, port_names={"grpc": 9090})
    closed = policy({"matchLabels": {"app": "web"}}, egress=[])
    for direction, pods in (("ingress", "api"), ("egress", "web")):
        rule = policy({"matchLabels": {"app": pods}}, **{direction: [{"ports": [{"port": "grpc"}]}]})
        found = set(permitted([rule, *([closed] if direction == "egress" else [])], (WEB, named)))
        assert {each.port for each in found if (each.source, each.target) == ("web", "api")} == {9090}


def test_a_policy_without_types_governs_ingress() -> None:
    silent = policy({}, ingress=[])
    del silent["spec"]["policyTypes"]
    assert connections(silent) == connections(policy({}, ingress=[]))


def test_a_policy_without_types_governs_egress_if_it_has_egress_rules() -> None:
    talking = policy({}, ingress=[], egress=[{"ports": [{"port": 443}]}])
    both = connections(talking)
    del talking["spec"]["policyTypes"]
    assert connections(talking) == both


def test_a_selector_may_have_expressions() -> None:
    expression = {"key": "app", "operator": "NotIn", "values": ["api"]}
    assert connections(policy({"matchExpressions": [expression]}, ingress=[])) == connections(
        policy({"matchLabels": {"app": "web"}}, ingress=[])
    )
