from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stack.model.network_connections import Connection, Endpoint, permitted

NAMESPACE = "kubernetes.io/metadata.name"
LABELS = st.dictionaries(st.sampled_from("ab"), st.just("x"), max_size=2)
SELECTORS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(lambda labels: {"matchLabels": labels}, LABELS)
NAMESPACES: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.sampled_from("nm").map(
    lambda name: {"matchLabels": {NAMESPACE: name}}
)
PEERS = (
    st.fixed_dictionaries({"podSelector": SELECTORS}, optional={"namespaceSelector": NAMESPACES})
    | st.fixed_dictionaries({"namespaceSelector": NAMESPACES})
    | st.sampled_from([{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}])
)
PORTS = st.fixed_dictionaries(
    {"port": st.integers(1, 3)}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "endPort": st.just(3)}
)


def rules(side: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    optional = {"ports": st.lists(PORTS, max_size=2)}
    return st.lists(st.fixed_dictionaries({side: st.lists(PEERS, max_size=2)}, optional=optional), max_size=2)


POLICIES = st.builds(
    lambda namespace, spec: {"kind": "NetworkPolicy", "metadata": {"namespace": namespace}, "spec": spec},
    st.sampled_from("nm"),
    st.fixed_dictionaries(
        {
            "podSelector": SELECTORS,
            "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            "ingress": rules("from"),
            "egress": rules("to"),
        }
    ),
)
PODS = st.builds(
    Endpoint,
    name=st.just(""),
    namespace=st.sampled_from("nm"),
    labels=LABELS,
    ports=st.sets(st.integers(1, 3), max_size=2).map(lambda ports: tuple(sorted(ports))),
    governed=st.sampled_from([True, True, False]),
)


def matches(selector: dict[str, Any], labels: Any) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def picks(peer: dict[str, Any], own: Endpoint, other: Endpoint) -> bool:
    if "ipBlock" in peer:
        return other.ip is not None and ip_address(other.ip) in ip_network(peer["ipBlock"]["cidr"])
    namespace = peer.get("namespaceSelector", {"matchLabels": {NAMESPACE: own.namespace}})
    inside = matches(namespace, {NAMESPACE: other.namespace}) and other.ip is None
    return inside and matches(peer.get("podSelector", {}), other.labels)


def admits(policies: list[dict[str, Any]], kind: str, own: Endpoint, other: Endpoint, port: int) -> bool:
    """True if the policies of one end admit the connection, as the API reference of NetworkPolicy defines it."""
    governing = [
        policy["spec"]
        for policy in policies
        if own.governed
        and policy["metadata"]["namespace"] == own.namespace
        and kind in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], own.labels)
    ]
    if not governing:
        return True
    side = {"Ingress": "from", "Egress": "to"}[kind]
    return any(
        (not rule.get(side) or any(picks(peer, own, other) for peer in rule[side]))
        and (
            not rule.get("ports")
            or any(
                allowed.get("protocol", "TCP") == "TCP"
                and allowed["port"] <= port <= allowed.get("endPort", allowed["port"])
                for allowed in rule["ports"]
            )
        )
        for spec in governing
        for rule in spec[kind.lower()]
    )


@settings(max_examples=400)
@given(st.lists(POLICIES, min_size=1, max_size=4), st.lists(PODS, min_size=2, max_size=5))
def test_a_connection_is_permitted_exactly_if_both_ends_admit_it(
    policies: list[dict[str, Any]], pods: list[Endpoint]
) -> None:
    endpoints = [
        Endpoint(f"{number}", pod.namespace, pod.labels, pod.ports, governed=pod.governed)
        for number, pod in enumerate(pods)
    ]
    endpoints.append(Endpoint("outside", ip="10.0.0.1", ports=(1,)))
    expected = [
        Connection(source.name, target.name, port)
        for source in endpoints
        for target in endpoints
        for port in target.ports
        if admits(policies, "Egress", source, target, port) and admits(policies, "Ingress", target, source, port)
    ]
    found = list(permitted(policies, endpoints))
    assert set(found) == set(expected)
    assert len(found) == len(expected)
