"""VoiceAssistant as one value that the entry points pass to the engine."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from components.observability.jaeger import TRACES
from stack.model import microservices
from stack.model.alerting import Alerting
from stack.model.catalogue import Catalogue
from stack.model.tenant import Tenant, Tier
from stack.voiceassistant import alerts, catalog
from stack.voiceassistant.platform_alerts import PLATFORM_ALERTS
from stack.voiceassistant.platform_team import PLATFORM_TEAM
from stack.voiceassistant.policy_alerts import MESH_ALERTS
from stack.voiceassistant.profiles import PROFILES
from stack.voiceassistant.site import SITE
from stack.voiceassistant.store_alerts import ALERTS_BY_JOB, ALERTS_BY_STORE
from stack.voiceassistant.targets import TARGETS
from stack.voiceassistant.tiers import (
    data,
    egress,
    full_text_index,
    gateway,
    mesh,
    observability,
    schemas,
    store_exporters,
    telemetry_stores,
)

CATALOGUE = Catalogue(
    source="stack/voiceassistant/catalog",
    site=SITE,
    nodes=(catalog.GATEWAY, *catalog.SERVICES, *catalog.DEPENDENCIES),
    flows=catalog.FLOWS,
    only_callers=catalog.ONLY_CALLERS,
    forbidden=catalog.FORBIDDEN,
)
ALERTING = Alerting(
    source="stack/voiceassistant/alerts.py",
    objective_alerts=(*alerts.OBJECTIVE_ALERTS, *MESH_ALERTS),
    platform_alerts=(*PLATFORM_ALERTS, *chain.from_iterable(ALERTS_BY_JOB.values())),
    store_alerts=ALERTS_BY_STORE,
    severities=alerts.SEVERITIES,
    teams=catalog.TEAM_SERVICES,
    platform_team=PLATFORM_TEAM,
)
DECIDED_BY = {
    "Collector.backends": "trace_sample_ratio",
    "Elasticsearch.streams": "trace_sample_ratio",
    f"Elasticsearch.streams.{TRACES}": "trace_sample_ratio",
    "Prometheus.retention": "metrics.retention",
    "Tempo.stream": "trace_sample_ratio",
}
"""Field of a component → the setting that decides how much data the component stores.

If the data does not fit on the disk, the error names this setting, because the profile fixes the size of the disk."""
TENANT = Tenant(
    name="VoiceAssistant",
    catalogue=CATALOGUE,
    tiers=(
        Tier(microservices.components),
        Tier(data.components, data.links),
        Tier(full_text_index.components, full_text_index.links),
        Tier(schemas.components),
        Tier(egress.components, egress.links),
        Tier(telemetry_stores.components, telemetry_stores.links),
        Tier(store_exporters.components, store_exporters.links),
        Tier(gateway.components, gateway.links),
        Tier(observability.components, observability.links),
        Tier(mesh.components, mesh.links),
    ),
    alerting=ALERTING,
    profiles=PROFILES,
    targets=TARGETS,
    runbook=Path(__file__).with_name("runbook"),
    decided_by=DECIDED_BY,
)
