"""Third-party images: the version of each, and its licence. `images.lock.yaml` holds the digests."""

from __future__ import annotations

from voice_policies import ClosedModel

__all__ = [
    "ALERTMANAGER",
    "APISIX",
    "BLACKBOX_EXPORTER",
    "COLLECTOR",
    "CONSUL",
    "ELASTICSEARCH",
    "ELASTICSEARCH_EXPORTER",
    "ENVOY",
    "FLUENT_BIT",
    "GRAFANA",
    "HAPROXY",
    "JAEGER",
    "KIBANA",
    "KNOWN",
    "KUBE_STATE_METRICS",
    "PGBOUNCER",
    "POSTGRESQL",
    "POSTGRESQL_OPERAND",
    "PROMETHEUS",
    "REDIS_EXPORTER",
    "TEMPO",
    "VALKEY",
    "ThirdPartyImage",
]


class ThirdPartyImage(ClosedModel):
    """An image that we run and do not build."""

    reference: str
    """`repository:tag`."""
    source: str
    """Repository of its source on GitHub, as `owner/name`."""
    licence: str
    """SPDX identifier."""
    note: str
    """The purpose of the image, and the consequence of its licence."""


POSTGRESQL = ThirdPartyImage(
    reference="postgres:18.6",
    source="postgres/postgres",
    licence="PostgreSQL",
    note="dev's database; its tools write and restore dumps, and create tables",
)
POSTGRESQL_OPERAND = ThirdPartyImage(
    reference="ghcr.io/cloudnative-pg/postgresql:18.6-system-trixie",
    source="cloudnative-pg/postgres-containers",
    licence="PostgreSQL",
    note="staging's and prod's database, run by the operator CloudNativePG 1.30 (Apache-2.0); "
    "the image's tools also create the tables of an external database, over TLS",
)
PGBOUNCER = ThirdPartyImage(
    reference="ghcr.io/cloudnative-pg/pgbouncer:1.25.2",
    source="cloudnative-pg/pgbouncer-containers",
    licence="ISC",
    note="the pooler, run by the operator; packaged under Apache-2.0",
)
CONSUL = ThirdPartyImage(
    reference="hashicorp/consul:2.0.3", source="hashicorp/consul", licence="BUSL-1.1", note="catalogue and KV store"
)
HAPROXY = ThirdPartyImage(
    reference="haproxy:3.2",
    source="haproxy/haproxy",
    licence="GPL-2.0-or-later",
    note="sends connections to Valkey's primary",
)
VALKEY = ThirdPartyImage(
    reference="valkey/valkey:9.1.1",
    source="valkey-io/valkey",
    licence="BSD-3-Clause",
    note="cache and events; compatible with Redis",
)
APISIX = ThirdPartyImage(
    reference="apache/apisix:3.18.0-debian", source="apache/apisix", licence="Apache-2.0", note="the gateway"
)
ENVOY = ThirdPartyImage(
    reference="envoyproxy/envoy:distroless-v1.40.0",
    source="envoyproxy/envoy",
    licence="Apache-2.0",
    note="the egress proxies",
)
COLLECTOR = ThirdPartyImage(
    reference="otel/opentelemetry-collector-k8s:0.155.0",
    source="open-telemetry/opentelemetry-collector-releases",
    licence="Apache-2.0",
    note="receives all telemetry over OTLP",
)
PROMETHEUS = ThirdPartyImage(
    reference="prom/prometheus:v3.16.0", source="prometheus/prometheus", licence="Apache-2.0", note="metrics and alerts"
)
ALERTMANAGER = ThirdPartyImage(
    reference="prom/alertmanager:v0.34.2",
    source="prometheus/alertmanager",
    licence="Apache-2.0",
    note="sends notifications of alerts",
)
BLACKBOX_EXPORTER = ThirdPartyImage(
    reference="prom/blackbox-exporter:v0.28.0",
    source="prometheus/blackbox_exporter",
    licence="Apache-2.0",
    note="probes servers without metrics, and reads the expiry of certificates",
)
REDIS_EXPORTER = ThirdPartyImage(
    reference="oliver006/redis_exporter:v1.88.0",
    source="oliver006/redis_exporter",
    licence="MIT",
    note="serves Valkey's statistics as metrics",
)
ELASTICSEARCH_EXPORTER = ThirdPartyImage(
    reference="prometheuscommunity/elasticsearch-exporter:v1.11.0",
    source="prometheus-community/elasticsearch_exporter",
    licence="Apache-2.0",
    note="serves Elasticsearch's health as metrics",
)
KUBE_STATE_METRICS = ThirdPartyImage(
    reference="registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.17.0",
    source="kubernetes/kube-state-metrics",
    licence="Apache-2.0",
    note="serves the states of nodes, pods and workloads as metrics",
)
JAEGER = ThirdPartyImage(
    reference="jaegertracing/jaeger:2.20.0",
    source="jaegertracing/jaeger",
    licence="Apache-2.0",
    note="receives and shows traces",
)
TEMPO = ThirdPartyImage(
    reference="grafana/tempo:3.0.3", source="grafana/tempo", licence="AGPL-3.0-only", note="stores traces; not modified"
)
ELASTICSEARCH = ThirdPartyImage(
    reference="elasticsearch:9.5.2",
    source="elastic/elasticsearch",
    licence="Elastic-2.0",
    note="full-text index, logs and traces; the platform does not offer it to others as a service",
)
KIBANA = ThirdPartyImage(
    reference="kibana:9.5.2",
    source="elastic/kibana",
    licence="Elastic-2.0",
    note="shows logs; the platform does not offer it to others as a service",
)
FLUENT_BIT = ThirdPartyImage(
    reference="fluent/fluent-bit:5.1.1",
    source="fluent/fluent-bit",
    licence="Apache-2.0",
    note="ships logs from every node",
)
GRAFANA = ThirdPartyImage(
    reference="grafana/grafana:13.2.0",
    source="grafana/grafana",
    licence="AGPL-3.0-only",
    note="dashboards; not modified",
)

KNOWN = tuple(image for image in vars().values() if isinstance(image, ThirdPartyImage))
"""Every third-party image."""
