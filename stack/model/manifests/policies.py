"""The parts of NetworkPolicies and VirtualServices that the audit reads."""

from __future__ import annotations

from pydantic import Field

from stack.model.manifests.resources import Part, Selector

__all__ = ["PolicyPort"]


class IpBlock(Part):
    """A block of addresses."""

    cidr: str
    excepted: tuple[str, ...] = Field(default=(), alias="except")


class PolicyPeer(Part):
    """Pods, or addresses, that a rule admits."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IpBlock | None = None


class PolicyPort(Part):
    """A port or a range of ports that a rule admits. Without `port` the rule admits every port."""

    port: int | str | None = None
    end_port: int | None = None
    protocol: str = "TCP"


class PolicyRule(Part):
    """A rule of a NetworkPolicy. A rule without peers admits all peers, and a rule without ports admits all ports."""

    sources: tuple[PolicyPeer, ...] = Field(default=(), alias="from")
    targets: tuple[PolicyPeer, ...] = Field(default=(), alias="to")
    ports: tuple[PolicyPort, ...] = ()

    @property
    def peers(self) -> tuple[PolicyPeer, ...]:
        """The sources of an ingress rule, or the targets of an egress rule."""
        return self.sources or self.targets


class NetworkPolicySpec(Part):
    """The pods that a NetworkPolicy governs, and the connections that the policy admits in each direction."""

    pod_selector: Selector = Selector()
    policy_types: tuple[str, ...] = ()
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()

    @property
    def directions(self) -> frozenset[str]:
        """The directions that the policy governs. By default `Ingress`, and also `Egress` if it has egress rules."""
        return frozenset(self.policy_types or ("Ingress", *(("Egress",) if self.egress else ())))


class HttpRetry(Part):
    """Retries of Istio's proxies. `attempts` excludes the first attempt."""

    attempts: int = 0
    per_try_timeout: str | None = None


class RouteHost(Part):
    """The host that a route leads to."""

    host: str


class RouteDestination(Part):
    """One of the destinations of a route."""

    destination: RouteHost


class HttpRoute(Part):
    """A route of a VirtualService."""

    route: tuple[RouteDestination, ...] = ()
    retries: HttpRetry | None = None
    timeout: str | None = None


class VirtualServiceSpec(Part):
    """The routes of an Istio VirtualService."""

    http: tuple[HttpRoute, ...] = ()
