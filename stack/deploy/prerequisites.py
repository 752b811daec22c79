"""The prerequisites of a cluster in addition to its operators: metrics, DNS, network policies, priorities."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from voice_policies import Fault

from components.network_policy import DNS_NAMESPACE
from components.priority import PRIORITIES
from stack.deploy.cluster import Cluster, NotFoundError
from stack.model.settings import path_of

if TYPE_CHECKING:
    from stack.model.platform import Platform

METRICS = "metrics.k8s.io/v1beta1"
DNS_SERVICE = f"/api/v1/namespaces/{DNS_NAMESPACE}/services/kube-dns"
LOWEST = min(value for value, _ in PRIORITIES.values())
PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
DAEMON_SETS = "/apis/apps/v1/namespaces/{}/daemonsets"
FLANNEL = ("kube-flannel", "kube-flannel-ds")
"""Namespace and DaemonSet of flannel, which enforces no NetworkPolicy."""
ENFORCING = ("calico-node", "canal", "cilium", "kube-router")
"""DaemonSets that enforce NetworkPolicies, alone or next to flannel, in `kube-system` or in flannel's namespace."""


def prerequisite_faults(platform: Platform, cluster: Cluster) -> Iterator[Fault]:
    """Prerequisites that the cluster lacks. Each fault says what to install or change."""
    yield from _metrics_faults(platform, cluster)
    yield from _dns_faults(platform, cluster)
    yield from _network_faults(cluster)
    yield from _priority_faults(cluster)


def _metrics_faults(platform: Platform, cluster: Cluster) -> Iterator[Fault]:
    """Require metrics-server. A cluster of a lenient profile may live without autoscaling."""
    if platform.environment.profile.strict and "pods" not in cluster.served(METRICS):
        value = f"is missing: the cluster does not serve {METRICS}, so no autoscaler would scale"
        yield Fault("metrics-server", value, "install metrics-server")


def _dns_faults(platform: Platform, cluster: Cluster) -> Iterator[Fault]:
    """Compare the setting with the Service of the cluster's DNS.

    Trust the setting if the Service has another name or, like a headless Service, no address of its own.
    """
    try:
        spec = cluster.get(DNS_SERVICE)["spec"]
    except NotFoundError:
        return
    blocks = [ip_network(cidr) for cidr in platform.environment.settings.cluster_dns]
    for address in spec.get("clusterIPs", [spec.get("clusterIP", "None")]):
        if address != "None" and not any(ip_address(address) in block for block in blocks):
            value = f"lacks {address}, the address of the Service {DNS_NAMESPACE}/kube-dns"
            yield Fault(path_of("cluster_dns"), value, f"add {address}/{ip_address(address).max_prefixlen}")


def _network_faults(cluster: Cluster) -> Iterator[Fault]:
    """Refuse flannel without a plugin that enforces NetworkPolicies.

    Accept every other network, because no query shows whether a network enforces NetworkPolicies.
    """
    namespace, name = FLANNEL
    names = {
        each["metadata"]["name"]
        for place in (DNS_NAMESPACE, namespace)
        for each in cluster.get(DAEMON_SETS.format(place))["items"]
    }
    if name in names and not names.intersection(ENFORCING):
        value = f"is {namespace}, which enforces no NetworkPolicy: every pod could reach every other"
        yield Fault(
            "the cluster's network",
            value,
            f"install a network plugin that enforces NetworkPolicies, such as {', '.join(ENFORCING)}",
        )


def _priority_faults(cluster: Cluster) -> Iterator[Fault]:
    """Refuse a default class that is not below ours. Other owners' pods without a class could preempt our pods."""
    for each in cluster.get(PRIORITY_CLASSES)["items"]:
        if each.get("globalDefault") and each["value"] >= LOWEST:
            name = each["metadata"]["name"]
            value = (
                f"is the default of all pods, with the value {each['value']}:"
                f" pods of this class rank with or above our jobs, which have the value {LOWEST}"
            )
            yield Fault(f"PriorityClass {name}", value, f"expected a default below {LOWEST}")
