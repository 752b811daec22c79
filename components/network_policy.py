"""Network policies. The policies at both ends of a link permit the connection. Apart from DNS, all else is denied."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import AfterValidator
from voice_policies import ClosedModel

from components.operation import Name

if TYPE_CHECKING:
    from components.kubernetes.types import (
        NetworkPolicy,
        NetworkPolicyEgressRule,
        NetworkPolicyIngressRule,
        NetworkPolicyPeer,
        NetworkPolicyPort,
        NetworkPolicySpec,
        ObjectMeta,
    )

__all__ = [
    "DNS_LABEL",
    "DNS_NAMESPACE",
    "DNS_PODS",
    "DNS_PORT",
    "NAMESPACE_LABEL",
    "NAME_LABEL",
    "NODE_LOCAL_DNS",
    "AddressBlock",
    "Cidr",
    "NetworkEnd",
    "Peer",
    "SingleAddress",
]

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
NAME_LABEL = "app.kubernetes.io/name"
DNS_NAMESPACE = "kube-system"
DNS_LABEL = "k8s-app"
DNS_PODS = ("kube-dns", "node-local-dns")
"""Values of the label `k8s-app`: the cluster's DNS, and the DNS cache on each node."""
NODE_LOCAL_DNS = "169.254.20.10/32"
"""Address of the DNS cache on each node, in clusters where the pods' `resolv.conf` contains this address."""
DNS_PORT = 53


def _block(text: str) -> str:
    """Refuse a block that is not canonical, such as `10.0.0.1/24` (host bits) or `10.0.0.0/255.255.255.0` (netmask)."""
    try:
        canonical = str(ip_network(text))
    except ValueError:
        canonical = None
    if text != canonical:
        raise ValueError(
            "expected a block in its canonical form, with host bits of zero, such as 10.0.0.0/24 or 2001:db8::/32"
        )
    return text


Cidr = Annotated[str, AfterValidator(_block)]
"""A block of IPv4 or IPv6 addresses, as a NetworkPolicy takes it."""


def _one_address(block: str) -> str:
    if ip_network(block).num_addresses > 1:
        raise ValueError("expected a single address, such as 10.96.0.10/32 or fd00::a/128")
    return block


SingleAddress = Annotated[Cidr, AfterValidator(_one_address)]
"""A block of one address."""


class Peer(ClosedModel):
    """The pods of one component, and the destination ports of a rule.

    An egress rule names ports of these pods. An ingress rule names ports of the pods that the policy selects.
    """

    namespace: Name
    name: Name
    ports: tuple[int, ...]
    udp_ports: tuple[int, ...] = ()
    """UDP ports. `ports` are TCP ports."""
    label: str = NAME_LABEL
    """The label that holds the name. Some operators reserve `app.kubernetes.io/name` on the pods that they create."""

    def selectors(self) -> NetworkPolicyPeer:
        """The pods and their namespace, as selectors of a NetworkPolicy."""
        return {
            "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: self.namespace}},
            "podSelector": {"matchLabels": {self.label: self.name}},
        }


class AddressBlock(ClosedModel):
    """Addresses outside our pods, such as the Kubernetes API's, and the destination ports."""

    name: Name
    cidr: Cidr
    excepted: tuple[Cidr, ...] = ()
    """Blocks inside `cidr` that stay denied."""
    ports: tuple[int, ...]

    def selectors(self) -> NetworkPolicyPeer:
        """The block as a NetworkPolicy's `ipBlock`."""
        if self.excepted:
            return {"ipBlock": {"cidr": self.cidr, "except": list(self.excepted)}}
        return {"ipBlock": {"cidr": self.cidr}}


NetworkEnd: TypeAlias = Peer | AddressBlock
"""An end of a link, or a peer in a NetworkPolicy's rule: pods, or a block of addresses."""


def network_policy(
    metadata: ObjectMeta, selector: dict[str, str], ingress: Iterable[NetworkEnd], egress: Iterable[NetworkEnd]
) -> NetworkPolicy:
    """A policy that permits exactly these peers, and denies everything else in both directions."""
    incoming: list[NetworkPolicyIngressRule] = [{"from": [peer.selectors()], "ports": _ports(peer)} for peer in ingress]
    outgoing: list[NetworkPolicyEgressRule] = [{"to": [peer.selectors()], "ports": _ports(peer)} for peer in egress]
    spec: NetworkPolicySpec = {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress", "Egress"]}
    # The API server drops an empty list, so a later apply would see a change. A direction without a list denies all.
    if incoming:
        spec["ingress"] = incoming
    if outgoing:
        spec["egress"] = outgoing
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def dns_policy(metadata: ObjectMeta, addresses: Iterable[Cidr]) -> NetworkPolicy:
    """Permit every pod of the namespace to query the cluster's DNS, or the cache on its node.

    A cache in iptables mode listens on the addresses of the DNS Service, in the node's network. No pod selector
    matches the node's network, so the policy also permits these addresses.
    """
    ports: list[NetworkPolicyPort] = [
        {"port": DNS_PORT, "protocol": "UDP"},
        {"port": DNS_PORT, "protocol": "TCP"},
    ]
    pods: list[NetworkPolicyPeer] = [
        {
            "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: DNS_NAMESPACE}},
            "podSelector": {"matchLabels": {DNS_LABEL: name}},
        }
        for name in DNS_PODS
    ]
    blocks: list[NetworkPolicyPeer] = [{"ipBlock": {"cidr": cidr}} for cidr in (NODE_LOCAL_DNS, *addresses)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [*pods, *blocks], "ports": ports}],
        },
    }


def default_deny(metadata: ObjectMeta) -> NetworkPolicy:
    """Deny all traffic until another policy of the namespace permits it."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def _ports(peer: Peer | AddressBlock) -> list[NetworkPolicyPort]:
    ports: list[NetworkPolicyPort] = [{"port": port, "protocol": "TCP"} for port in peer.ports]
    if isinstance(peer, Peer):
        ports += [{"port": port, "protocol": "UDP"} for port in peer.udp_ports]
    return ports
