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
EGRESS_PORT = 8443
EGRESS_PROXIES = ("egress-proxy-a", "egress-proxy-b")
DATA = "voice-data"
STORE_LABEL = "voiceassistant.dev/store"
"""Names PostgreSQL's pods: its operator writes its own `app.kubernetes.io/name` on instances and poolers alike."""
OBSERVABILITY = "voice-observability"
COLLECTOR = "otel-collector"
COLLECTOR_PORT = 4317
COLLECTOR_ENDPOINT = f"http://{COLLECTOR}.{OBSERVABILITY}.svc.cluster.local:{COLLECTOR_PORT}"
PROMETHEUS = "prometheus"
