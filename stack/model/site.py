"""The fixed facts of a platform that the engine needs besides nodes and tiers: namespaces, networks, shared servers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from voice_policies import ClosedModel, Ratio, TextPattern

from components.network_policy import AddressBlock, Cidr, Peer
from components.node import Host, Service, Tier
from components.operation import Name
from stack.model.prices import Prices

__all__ = ["INTERNET", "INTERNET_V6", "Site"]

INTERNET = "0.0.0.0/0"
"""Every IPv4 address. Only IPv4 leaves the cluster, because every declared host has an IPv4 address."""
INTERNET_V6 = "::/0"
RESERVED_NETWORKS = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
)
"""Blocks without public hosts (RFC 6890): pods, nodes, the cloud's metadata service, multicast."""
PUBLIC_NETWORK = AddressBlock(name="internet", cidr=INTERNET, excepted=RESERVED_NETWORKS, ports=())


class Site(ClosedModel):
    """Namespaces, networks and the servers that every service talks to."""

    collector: Peer
    """Pods to which every service sends its telemetry, and their port for OTLP over gRPC."""
    prometheus: Peer
    """Pods that scrape every service, and the port of their API."""
    prober: Peer
    """Pods that probe hosts and the servers without metrics, and the port at which Prometheus scrapes these pods."""
    node_agents: Name
    """The only namespace whose pods read files of their nodes."""
    egress: Name
    """Namespace of the egress proxies."""
    private_domain: Annotated[str, TextPattern(r"^(\.[a-z0-9-]+)+$", ".internal")]
    """Ending of the names of hosts in the peered network."""
    peered_network: Cidr
    """The network that is peered with the cluster's. No pod or node may have an address in it."""
    own_availability: dict[Tier, Ratio]
    """Tier → availability of its services while all their dependencies work."""
    egress_availability: Ratio
    """Availability of one egress proxy."""
    prices: Prices | None = None
    """The price table. With `None` no cost is computed."""
    monthly_budget: Annotated[int, Field(gt=0)] | None = None
    """USD that the services may cost in a month at the expected scale (`EXPECTED` in `pod_demand.py`). `None`
    sets no budget."""
    monthly_model_budget: Annotated[int, Field(gt=0)] | None = None
    """USD that model calls may cost in a month at the mean load. `None` sets no budget."""
    mean_load: Ratio = Ratio("25%")
    """A month's mean load as a share of the declared loads, which are peaks (an assumption of 2026-11)."""
    cluster_domain: str = "svc.cluster.local"
    """Domain of the names of the cluster's Services."""

    def host(self, name: str, namespace: str) -> str:
        """DNS name of a Service."""
        return f"{name}.{namespace}.{self.cluster_domain}"

    def grpc_host(self, service: Service) -> str:
        """DNS name of a service's gRPC pods. The Service is headless, so that a client sees every pod."""
        return self.host(f"{service.name}-grpc", service.namespace)

    def http_host(self, service: Service) -> str:
        """DNS name of a service's HTTP port."""
        return self.host(service.name, service.namespace)

    def is_private(self, host: Host) -> bool:
        """True if the host is in the peered network. Otherwise it is on the internet."""
        return host.host.endswith(self.private_domain)

    def network_of(self, host: Host) -> AddressBlock:
        """The network of a host, without ports. A NetworkPolicy cannot name a host."""
        return self.private_network if self.is_private(host) else PUBLIC_NETWORK

    @property
    def private_network(self) -> AddressBlock:
        """The peered network as a peer of NetworkPolicies, without ports."""
        return AddressBlock(name="peered-network", cidr=self.peered_network, ports=())
