"""Mesh and egress: calls between services (from sampled spans), breakers of the mesh, connections of egress proxies."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics, rate, ratio

EDGE = "client, server"
LEGEND = "{{client}} → {{server}}"
CLUSTER = "envoy_cluster_name"
"""The label that names the host and port in Envoy's statistics."""


def _p95(histogram: str) -> str:
    return f"histogram_quantile(0.95, {rate(histogram, f'le, {EDGE}')})"


_SAMPLED = rate("traces_service_graph_request_total", EDGE)
_FAILED = rate("traces_service_graph_request_failed_total", EDGE)
_BETWEEN_SERVICES = Row(
    title="Between services (from the spans of sampled traces)",
    panels=(
        metrics("Requests", "Sampled requests, by caller and callee.", {LEGEND: _SAMPLED}, "reqps"),
        metrics(
            "Failures", "Share of sampled requests that failed.", {LEGEND: ratio(_FAILED, _SAMPLED)}, "percentunit"
        ),
        metrics(
            "Time at the callee",
            "P95, by caller and callee.",
            {LEGEND: _p95("traces_service_graph_request_server_seconds_bucket")},
            "s",
        ),
        metrics(
            "Time at the caller",
            "P95 including network and mesh. If it is much higher than at the callee, the network or the mesh is slow.",
            {LEGEND: _p95("traces_service_graph_request_client_seconds_bucket")},
            "s",
        ),
    ),
)
_DESTINATION = "caller, cluster_name"
"""Labels of the mesh's statistics: the calling service, and the callee's address in the mesh."""
_MESH = Row(
    title="Mesh proxies in the services' pods (staging, prod)",
    panels=(
        metrics(
            "Ejected endpoints",
            "Failing pods that the mesh's circuit breaker has ejected from load balancing.",
            {
                "{{caller}} → {{cluster_name}}": f"sum by ({_DESTINATION})"
                " (envoy_cluster_outlier_detection_ejections_active) > 0"
            },
        ),
        metrics(
            "Refused calls",
            "Calls that the mesh refused because too many requests are in flight or too many connections are open.",
            {
                "{{caller}} → {{cluster_name}}: requests": rate(
                    "envoy_cluster_upstream_rq_pending_overflow", _DESTINATION
                ),
                "{{caller}} → {{cluster_name}}: connections": rate("envoy_cluster_upstream_cx_overflow", _DESTINATION),
            },
            "reqps",
        ),
    ),
)
_EGRESS = Row(
    title="Egress proxies",
    panels=(
        metrics(
            "Connections",
            "Open connections, by host.",
            {f"{{{{job}}}} {{{{{CLUSTER}}}}}": f"sum by (job, {CLUSTER}) (envoy_cluster_upstream_cx_active)"},
        ),
        metrics(
            "Failed connections",
            "Connections that the host refused or did not accept in time, by host.",
            {f"{{{{{CLUSTER}}}}}": rate("envoy_cluster_upstream_cx_connect_fail", CLUSTER)},
            "reqps",
        ),
        metrics(
            "Traffic",
            "Bytes a second to and from each host.",
            {
                f"{{{{{CLUSTER}}}}} sent": rate("envoy_cluster_upstream_cx_tx_bytes_total", CLUSTER),
                f"{{{{{CLUSTER}}}}} received": rate("envoy_cluster_upstream_cx_rx_bytes_total", CLUSTER),
            },
            "Bps",
        ),
        metrics(
            "Refused connections",
            "Connections without TLS, or to a host that the caller does not declare.",
            {"{{job}} {{pod}}": rate("envoy_listener_no_filter_chain_match", "job, pod")},
            "reqps",
        ),
    ),
)


def transport() -> Dashboard:
    """The dashboard of mesh and egress proxies."""
    return Dashboard(
        uid="mesh",
        title="Mesh and egress",
        rows=(_BETWEEN_SERVICES, _MESH, _EGRESS),
    )
