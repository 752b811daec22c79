"""The fixed facts of VoiceAssistant: namespaces, networks and shared servers."""

from __future__ import annotations

from datetime import date

from voice_policies import Ratio

from components.network_policy import Peer
from components.observability import blackbox_exporter
from stack.model.prices import Prices
from stack.model.site import Site

APPS = "voice-apps"
DATA = "voice-data"
EGRESS = "voice-egress"
OBSERVABILITY = "voice-observability"
NODE_AGENTS = "voice-node-agents"
EGRESS_PROXY = "egress-proxy"
"""Name of the profiles' entry that gives the size of each egress proxy."""
EGRESS_PROXIES = ("egress-proxy-a", "egress-proxy-b")
STORE_LABEL = "voiceassistant.dev/store"
"""Label that distinguishes PostgreSQL's instances from its poolers. The operator sets `app.kubernetes.io/name` itself,
with the same value on both."""
COLLECTOR = "otel-collector"
COLLECTOR_PORT = 4317
COLLECTOR_HTTP_PORT = 4318
PROMETHEUS = "prometheus"
PROMETHEUS_PORT = 9090
ALERTMANAGER = "alertmanager"
ALERTMANAGER_PORT = 9093
VALKEY_EXPORTER, ELASTICSEARCH_EXPORTER = "valkey-exporter", "elasticsearch-exporter"
CLUSTER_DNS = "cluster-dns"
"""The scrape job that resolves a name through the cluster's DNS."""
PUBLIC_NAME, PUBLIC_ENTRANCE = "public-name", "public-entrance"
"""Two scrape jobs: one resolves the gateway's host name, the other calls the gateway through DNS and load balancer."""
PRICES = Prices(
    cpu_hour=0.0445,
    memory_hour=0.0049225,
    storage_month=0.10,
    source="Google Cloud list prices, us-central1: GKE Autopilot general-purpose pods, balanced persistent disks",
    read_on=date(2026, 11, 30),
)
"""List prices without discounts, an assumption until a contract replaces them.

Google renders its price pages in the browser (cloud.google.com/kubernetes-engine/pricing and
cloud.google.com/compute/disks-image-pricing). The numbers were read in published copies of those tables, which agree.
"""

RUNBOOK = "https://github.com/voicehelper/platform/blob/main/docs/runbook/alerts.md"
"""URL of the runbook's page of alerts. The repository's host is an assumption."""

SITE = Site(
    collector=Peer(namespace=OBSERVABILITY, name=COLLECTOR, ports=(COLLECTOR_PORT,)),
    prometheus=Peer(namespace=OBSERVABILITY, name=PROMETHEUS, ports=(PROMETHEUS_PORT,)),
    prober=Peer(namespace=OBSERVABILITY, name="blackbox-exporter", ports=(blackbox_exporter.PORT,)),
    node_agents=NODE_AGENTS,
    egress=EGRESS,
    private_domain=".internal",  # ICANN reserves this domain for private use, so no public host is in it
    peered_network="10.200.0.0/16",
    own_availability={"core": Ratio("99.99%"), "standard": Ratio("99.95%"), "batch": Ratio("99.9%")},
    egress_availability=Ratio("99.9%"),
    prices=PRICES,
    monthly_budget=2000,
)
PROMETHEUS_PODS = SITE.prometheus.model_copy(update={"ports": ()})
"""Prometheus as the source of a link."""
PROBER_PODS = SITE.prober.model_copy(update={"ports": ()})
"""The prober as the source of a link."""
