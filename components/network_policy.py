"""Network policies: who may talk to whom, at both ends of every declared edge."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network
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

__all__ = ["DNS_PORT", "NAMESPACE_LABEL", "NAME_LABEL", "AddressBlock", "Cidr", "NetworkEnd", "Peer"]

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
NAME_LABEL = "app.kubernetes.io/name"
NODE_LOCAL_DNS = "169.254.20.10/32"
"""Address of the node-local DNS cache, where the cluster runs one."""
DNS_PORT = 53


def _block(text: str) -> str:
    """Kubernetes refuses other spellings of a block: a host's bits set, a mask written out, no length."""
    try:
        canonical = str(IPv4Network(text))
    except ValueError:
        canonical = None
    if text != canonical:
        raise ValueError("expected an IPv4 block whose host bits are zero, such as 10.0.0.0/24")
    return text


Cidr = Annotated[str, AfterValidator(_block)]
"""A block of IPv4 addresses, as a NetworkPolicy takes it."""


class Peer(ClosedModel):
    """The pods of one component, on the ports that are used."""

    namespace: Name
    name: Name
    ports: tuple[int, ...]
    udp_ports: tuple[int, ...] = ()
    """Ports that are used over UDP too."""
    label: str = NAME_LABEL
    """The label that carries the name, where an operator keeps the usual one for itself."""

    def selectors(self) -> NetworkPolicyPeer:
        """Pods by name, in the namespace by its own name label."""
        return {
            "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: self.namespace}},
            "podSelector": {"matchLabels": {self.label: self.name}},
        }


class AddressBlock(ClosedModel):
    """Addresses that no pod of ours has, such as the Kubernetes API's, on the ports that are used."""

    name: Name
    cidr: Cidr
    excepted: tuple[Cidr, ...] = ()
    """Blocks within it that are not meant."""
    ports: tuple[int, ...]

    def selectors(self) -> NetworkPolicyPeer:
        """The block without its exceptions."""
        if self.excepted:
            return {"ipBlock": {"cidr": self.cidr, "except": list(self.excepted)}}
        return {"ipBlock": {"cidr": self.cidr}}


NetworkEnd: TypeAlias = Peer | AddressBlock
"""The other end of a rule: pods of the cluster, or addresses outside it."""


def network_policy(
    metadata: ObjectMeta, selector: dict[str, str], ingress: Iterable[NetworkEnd], egress: Iterable[NetworkEnd]
) -> NetworkPolicy:
    """Exactly these peers in and out; everything else is refused, in both directions."""
    incoming: list[NetworkPolicyIngressRule] = [{"from": [peer.selectors()], "ports": _ports(peer)} for peer in ingress]
    outgoing: list[NetworkPolicyEgressRule] = [{"to": [peer.selectors()], "ports": _ports(peer)} for peer in egress]
    spec: NetworkPolicySpec = {"podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress", "Egress"]}
    # The API server drops an empty list, and so sees a change in every apply of one; the policy type alone denies all.
    if incoming:
        spec["ingress"] = incoming
    if outgoing:
        spec["egress"] = outgoing
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def dns_policy(metadata: ObjectMeta) -> NetworkPolicy:
    """Every pod of the namespace may ask the cluster's DNS, or the cache on its node."""
    ports: list[NetworkPolicyPort] = [
        {"port": DNS_PORT, "protocol": "UDP"},
        {"port": DNS_PORT, "protocol": "TCP"},
    ]
    cluster_dns: NetworkPolicyPeer = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [cluster_dns, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}], "ports": ports}],
        },
    }


def default_deny(metadata: ObjectMeta) -> NetworkPolicy:
    """Nothing in, nothing out, until another policy of the namespace permits it."""
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
