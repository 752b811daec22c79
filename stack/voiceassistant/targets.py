"""The platform's targets and the fixed places that everything knows."""

from __future__ import annotations

from voice_policies import Ratio

from components.node import Tier

OWN_AVAILABILITY: dict[Tier, Ratio] = {
    "core": Ratio("99.99%"),
    "standard": Ratio("99.95%"),
    "batch": Ratio("99.9%"),
}
"""Of a service itself, its dependencies apart."""
EGRESS_AVAILABILITY = Ratio("99.9%")
"""Of each egress proxy."""

EGRESS = "voice-egress"
EGRESS_PROXIES = ("egress-proxy-a", "egress-proxy-b")
PRIVATE_DOMAIN = ".internal"
"""Top-level domain that names no public host (reserved by ICANN for private use)."""
PEERED_NETWORK = "10.200.0.0/16"
"""Where those hosts stand: the network that is peered with the cluster's. No pod or node may have an address of it."""
INTERNET = "0.0.0.0/0"
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
"""What of it is no public host (RFC 6890): pods, nodes, the cloud's metadata service, multicast."""
DATA = "voice-data"
STORE_LABEL = "voiceassistant.dev/store"
"""Names PostgreSQL's pods: its operator writes its own `app.kubernetes.io/name` on instances and poolers alike."""
OBSERVABILITY = "voice-observability"
COLLECTOR = "otel-collector"
COLLECTOR_PORT = 4317
COLLECTOR_HTTP_PORT = 4318
COLLECTOR_ENDPOINT = f"http://{COLLECTOR}.{OBSERVABILITY}.svc.cluster.local:{COLLECTOR_PORT}"
PROMETHEUS = "prometheus"
PROMETHEUS_PORT = 9090
ALERTMANAGER = "alertmanager"
ALERTMANAGER_PORT = 9093
NODE_AGENTS = "voice-node-agents"
"""The one namespace whose pods read the nodes they run on."""
