"""Network policies: who may talk to whom, at both ends of every declared edge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from voice_policies import ClosedModel

from components.operation import Name

if TYPE_CHECKING:
    from components.kubernetes.types import (
        NetworkPolicy,
        NetworkPolicyEgressRule,
        NetworkPolicyIngressRule,
        NetworkPolicyPeer,
        NetworkPolicyPort,
        ObjectMeta,
    )

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
NAME_LABEL = "app.kubernetes.io/name"
NODE_LOCAL_DNS = "169.254.20.10/32"
"""Address of the node-local DNS cache, where the cluster runs one."""
DNS_PORT = 53


class Peer(ClosedModel):
    """The pods of one component, on the ports that are used."""

    namespace: Name
    name: Name
    ports: tuple[int, ...]

    def selectors(self) -> NetworkPolicyPeer:
        """Pods by name, in the namespace by its own name label."""
        return {
            "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: self.namespace}},
            "podSelector": {"matchLabels": {NAME_LABEL: self.name}},
        }


class Block(ClosedModel):
    """Addresses, on the ports that are used."""

    cidr: str
    excepted: tuple[str, ...] = ()
    """Blocks within it that are not meant."""
    ports: tuple[int, ...]

    def selectors(self) -> NetworkPolicyPeer:
        """The block without its exceptions."""
        if self.excepted:
            return {"ipBlock": {"cidr": self.cidr, "except": list(self.excepted)}}
        return {"ipBlock": {"cidr": self.cidr}}


def network_policy(
    metadata: ObjectMeta, selector: dict[str, str], ingress: Iterable[Peer | Block], egress: Iterable[Peer | Block]
) -> NetworkPolicy:
    """Exactly these peers in and out; everything else is refused, in both directions."""
    incoming: list[NetworkPolicyIngressRule] = [
        {"from": [peer.selectors()], "ports": _tcp(peer.ports)} for peer in ingress
    ]
    outgoing: list[NetworkPolicyEgressRule] = [{"to": [peer.selectors()], "ports": _tcp(peer.ports)} for peer in egress]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": incoming,
            "egress": outgoing,
        },
    }


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


def _tcp(ports: tuple[int, ...]) -> list[NetworkPolicyPort]:
    return [{"port": port, "protocol": "TCP"} for port in ports]
