"""The gateway: answers by route and status, their duration, and the time until their first byte."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics, rate, ratio
from stack.voiceassistant.alerting import UPSTREAM

STATUS = "apisix_http_status"


def _share(codes: str) -> str:
    return ratio(rate(STATUS, "route", f"code=~'{codes}'"), rate(STATUS, "route"))


def _p95(histogram: str, matchers: str = "") -> str:
    return f"histogram_quantile(0.95, {rate(f'{histogram}_bucket', 'le, route', matchers)})"


_REQUESTS = Row(
    title="Requests",
    panels=(
        metrics("Requests", "Answers, by route.", {"{{route}}": rate(STATUS, "route")}, "reqps"),
        metrics(
            "Answers with 5xx",
            "Share of answers, by route.",
            {"{{route}}": _share("5..")},
            "percentunit",
            red_from=0.01,
        ),
        metrics(
            "Timeouts",
            "Share of answers with status 504, by route.",
            {"{{route}}": _share("504")},
            "percentunit",
            red_from=0.02,
        ),
        metrics(
            "Refused by a rate limit",
            "Share of answers with status 429, by route.",
            {"{{route}}": _share("429")},
            "percentunit",
            red_from=0.005,
        ),
    ),
)
_TIME = Row(
    title="Time",
    panels=(
        metrics(
            "P95 of the whole answer",
            "Time that the service takes, in milliseconds. The time that the client takes to read is not included.",
            {"{{route}}": _p95("apisix_http_latency", UPSTREAM)},
            "ms",
        ),
        metrics(
            "P95 of the first byte",
            "Time until the headers of the answer arrived, in milliseconds.",
            {"{{route}}": _p95("apisix_http_first_byte_latency")},
            "ms",
        ),
        metrics(
            "Beyond the objective",
            "Share of answers or first bytes that came later than the route's objective. The target is at most 5 %.",
            {
                "{{route}}": "route:slow:ratio_rate5m",
                "{{route}}: first byte": "route:late_first_byte:ratio_rate5m",
            },
            "percentunit",
            red_from=0.05,
        ),
        metrics(
            "Time in the gateway",
            "P95 of the time that the gateway itself takes, in milliseconds, by route.",
            {"{{route}}": _p95("apisix_http_latency", "type='apisix'")},
            "ms",
        ),
    ),
)
_CONNECTIONS = Row(
    title="Connections",
    panels=(
        metrics(
            "Connections",
            "Open connections of clients, by state.",
            {"{{state}}": 'sum by (state) (apisix_nginx_http_current_connections{state!~"accepted|handled|total"})'},
        ),
        metrics(
            "Traffic",
            "Bytes a second, by route and direction.",
            {"{{route}} {{type}}": rate("apisix_bandwidth", "route, type")},
            "Bps",
        ),
    ),
)


def gateway() -> Dashboard:
    """The dashboard of the gateway."""
    return Dashboard(
        uid="gateway",
        title="Gateway",
        rows=(_REQUESTS, _TIME, _CONNECTIONS),
    )
