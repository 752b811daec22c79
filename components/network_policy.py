"""Network policies: who may talk to whom, at both ends of every declared edge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field
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
    datagrams: tuple[int, ...] = ()
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
    cidr: Annotated[str, Field(pattern=r"^\d+(\.\d+){3}/\d+$")]
    excepted: tuple[str, ...] = ()
    """Blocks within it that are not meant."""
    ports: tuple[int, ...]

    def selectors(self) -> NetworkPolicyPeer:
        """The block without its exceptions."""
        if self.excepted:
            return {"ipBlock": {"cidr": self.cidr, "except": list(self.excepted)}}
        return {"ipBlock": {"cidr": self.cidr}}


NetworkEnd: TypeAlias = Peer | AddressBlock
"""Whom a policy names: pods of the cluster, or addresses outside."""


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
        ports += [{"port": port, "protocol": "UDP"} for port in peer.datagrams]
    return ports
