"""The two files of APISIX in standalone mode: `config.yaml` for the program, and `apisix.yaml` for the routes.

The policies of a route become plugins. One rate limit becomes two plugins. `limit-count` counts in Redis for all
replicas, and lets requests pass while Redis is down. `limit-req` counts in each replica, so a limit remains while Redis
is down. `limit-count` needs a window, and a token bucket has none. So the window is `burst / rate` in whole seconds,
rounded up, and `limit-count` admits at most `burst` requests in it. APISIX's breaker opens for 2 s after `failures`
failures. After each further `failures` failures the time doubles, up to `max_breaker_sec`, the model's
`max_break_duration`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typing_extensions import override
from voice_policies import (
    IDLE_TIMEOUT,
    STREAM_IDLE_TIMEOUT,
    Bytes,
    CircuitBreaker,
    ClosedModel,
    Duration,
    RateLimit,
    Ratio,
    TokenBucket,
)

from components.component import PART_OF
from components.edge.apisix_functions import REMOVE_CLAIMED_IDENTITY, SET_VERIFIED_IDENTITY, TENANT_HEADER
from components.node import Port
from components.operation import HttpRoute, Name

__all__ = ["PORTS", "Entrance", "GatewayRoute", "program", "resources"]


class GatewayPorts(ClosedModel):
    """The ports of the gateway."""

    http: Port = 9080
    https: Port = 9443
    metrics: Port = 9091
    status: Port = 7085


PORTS = GatewayPorts()
MEMORY_BODY = Bytes("16Ki")
"""Largest body that nginx keeps in memory, by its default `client_body_buffer_size`."""
ISSUER = "identity-service"
TEMPORARY_PATH = "/var/cache/apisix"
TOO_MANY = 429
UNAVAILABLE = 503
FAILURES = (500, 502, 503, 504)
SUCCESSES = (200, 201, 202, 204)
BROWSER_CACHE_SECONDS = 600
HSTS_SECONDS = 365 * 24 * 3600
"""Seconds for which a browser that has visited the gateway uses only TLS."""
FIRST = 20_000
"""Priority above every other global plugin. The next highest is 12015, for `request-id`; `opentelemetry` has 12009.
APISIX runs global plugins before the plugins of a route."""
ACCESS_LOG = {
    "time": "$time_iso8601",
    "message": "$request_method $uri $status",
    "method": "$request_method",
    "path": "$uri",
    "status": "$status",
    "bytes": "$body_bytes_sent",
    "seconds": "$request_time",
    "client": "$remote_addr",
    "agent": "$http_user_agent",
    "request_id": "$http_x_request_id",
    "upstream": "$upstream_addr",
    "upstream_seconds": "$upstream_response_time",
}
"""Fields of a log line. The path has no query, because a query may contain a person's words or a token."""


LATENCIES = (1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000)
"""Boundaries in milliseconds for APISIX's latency histogram and for the first-byte histogram. `_boundaries` adds the
objectives."""
FIRST_BYTE = """\
return function(_, ctx)
  local exporter = require("apisix.plugins.prometheus.exporter")
  local prometheus = exporter.get_prometheus()
  local seconds = tonumber((tostring(ctx.var.upstream_header_time):match("[%d.]+$")))
  if not (prometheus and seconds) then return end
  if not exporter.first_byte then
    exporter.first_byte = prometheus:histogram(
      "http_first_byte_latency", "Time until the headers of the answer arrived, in ms", {{"route"}}, {{{buckets}}})
  end
  exporter.first_byte:observe(seconds * 1000, {{ctx.route_name}})
end"""
"""Lua function that measures the time to the first byte of a streamed answer. APISIX's own histogram measures only the
time of the whole answer.

A retried request has one time for each attempt. The function takes the last time, because the last attempt answered.
"""


class GatewayRoute(ClosedModel):
    """One route: its operation, the service that serves it, and the policies of the call."""

    name: Name
    http: HttpRoute
    websocket: bool
    upstream: str
    port: Port
    timeout: Duration
    retries: int
    circuit_breaker: CircuitBreaker | None
    rate_limits: tuple[RateLimit, ...]
    concurrent: int
    """Largest number of simultaneous requests in one replica, on a route that buffers bodies on disk."""

    latency: Duration
    """P95 objective of the whole answer."""
    first_byte: Duration | None = None
    """P95 objective of a streamed answer's first byte. `None` if no flow declares one."""

    @property
    def buffered(self) -> Bytes:
        """Largest size on disk of the bodies of the route's simultaneous requests."""
        return self.http.max_body * self.concurrent if self.http.max_body > MEMORY_BODY else Bytes("0")

    @property
    def idle(self) -> Duration:
        """Longest time between two bytes. It is longer for a WebSocket, which is silent from one ping to the next."""
        return max(self.timeout, STREAM_IDLE_TIMEOUT) if self.websocket else self.timeout

    @override
    def conflicts(self) -> Iterator[str]:
        if len(self.rate_limits) > 1:
            yield f"{self.name} has {len(self.rate_limits)} rate limits: expected at most one for a route"
        for limit in self.rate_limits:
            if not isinstance(limit.limit, TokenBucket):
                yield f"{self.name} has a limit by {limit.limit.algorithm}: the gateway supports token_bucket only"
        if self.circuit_breaker and self.circuit_breaker.consecutive_failures is None:
            yield f"{self.name} has a breaker without consecutive_failures: the gateway supports that condition only"
        if self.circuit_breaker and self.websocket:
            yield (
                f'{self.name} is a WebSocket with a breaker: expected circuit_breaker "off". Its status is 101, and '
                "the gateway counts no status below 200 as a success, so the breaker would never forget a failure"
            )


class Entrance(ClosedModel):
    """Settings that all routes share."""

    host: str
    """Host name that clients request."""
    origins: tuple[str, ...]
    """Origins of the web pages that may call the gateway (CORS)."""
    redis_host: str
    redis_port: int
    redis_tls: bool = False
    """True: the gateway connects to Redis over TLS, and verifies the certificate with the image's authorities."""
    redis_user: str
    """The gateway's ACL user in Redis."""
    redis_timeout: Duration
    collector: str
    """`host:port` for OTLP over HTTP."""
    trace_sample_ratio: Ratio
    workers: int


def environment_reference(variable: str) -> str:
    """A reference to the environment variable that holds a secret's value. No file holds the value."""
    return f"$env://{variable}"


def program(entrance: Entrance, routes: Iterable[GatewayRoute]) -> dict[str, Any]:
    """`config.yaml` of a data plane that reads its routes from a file. The admin interface is off."""
    paths = {name: f"{TEMPORARY_PATH}/{name}" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")}
    return {
        "apisix": {
            "node_listen": [PORTS.http],
            "enable_admin": False,
            "enable_control": False,
            "enable_server_tokens": False,
            "ssl": {"enable": True, "listen": [{"port": PORTS.https}]},
            "status": {"ip": "0.0.0.0", "port": PORTS.status},  # noqa: S104 - kubelet probes the pod's address
        },
        "deployment": {"role": "data_plane", "role_data_plane": {"config_provider": "yaml"}},
        "nginx_config": {
            "worker_processes": entrance.workers,
            "error_log": "/dev/stderr",
            "http": {
                "access_log": "/dev/stdout",
                "access_log_format": json.dumps(ACCESS_LOG),
                "access_log_format_escape": "json",
                "client_max_body_size": str(max(route.http.max_body.units for route in routes)),
                "upstream": {"keepalive_timeout": f"{IDLE_TIMEOUT.whole_seconds()}s"},
            },
            # nginx writes no response to a file. So the service keeps the bytes that a slow client has not read yet.
            "http_configuration_snippet": "proxy_max_temp_file_size 0;\n"
            + "".join(f"{name}_temp_path {path};\n" for name, path in paths.items()),
        },
        "plugins": sorted({*_global_plugins(entrance), *_PLUGINS}),
        "plugin_attr": {
            "prometheus": {
                "export_addr": {"ip": "0.0.0.0", "port": PORTS.metrics},  # noqa: S104 - the network policy decides who connects
                # The share of requests within an objective is exact if the objective is a boundary.
                "default_buckets": _boundaries(route.latency for route in routes),
            },
            "redirect": {"https_port": 443},
        },
    }


def _boundaries(objectives: Iterable[Duration]) -> list[int]:
    """Boundaries of a histogram, in milliseconds. Each objective is a boundary."""
    return sorted({*LATENCIES, *(objective.units // 1000 for objective in objectives)})


_PLUGINS = (
    "api-breaker",
    "client-control",
    "cors",
    "jwt-auth",
    "limit-conn",
    "limit-count",
    "limit-req",
    "serverless-post-function",
)


def resources(entrance: Entrance, routes: Sequence[GatewayRoute]) -> dict[str, Any]:
    """`apisix.yaml`: the routes, the issuer of tokens, the plugins of all routes, and the TLS certificate."""
    # The first streamed answer creates the histogram for all routes, so each route has the objectives of all routes.
    buckets = _boundaries(route.first_byte for route in routes if route.first_byte)
    first_byte = FIRST_BYTE.format(buckets=", ".join(map(str, buckets)))
    return {
        "routes": [_route(entrance, route, first_byte) for route in routes],
        "consumers": [{"username": ISSUER, "plugins": {"jwt-auth": _issuer()}}],
        "global_rules": [{"id": "everywhere", "plugins": _global_plugins(entrance)}],
        "plugin_metadata": [
            {
                "id": "opentelemetry",
                "resource": {"service.name": "gateway", "service.namespace": PART_OF},
                "collector": {"address": entrance.collector, "request_timeout": 3},
            }
        ],
        "ssls": [
            {
                "id": "entrance",
                "snis": [entrance.host],
                "cert": environment_reference("TLS_CERTIFICATE"),
                "key": environment_reference("TLS_PRIVATE_KEY"),
            }
        ],
    }


def _issuer() -> dict[str, Any]:
    """The consumer with the public key that verifies tokens. Only the issuing service holds the signing key."""
    return {"key": ISSUER, "algorithm": "RS256", "public_key": environment_reference("JWT_PUBLIC_KEY")}


def _global_plugins(entrance: Entrance) -> dict[str, Any]:
    root = {"name": "trace_id_ratio", "options": {"fraction": float(entrance.trace_sample_ratio)}}
    return {
        "opentelemetry": {"sampler": {"name": "parent_base", "options": {"root": root}}},
        "prometheus": {"prefer_name": True},
        "redirect": {"http_to_https": True},
        "request-id": {"algorithm": "uuid", "include_in_response": True},
        "response-rewrite": {"headers": {"set": {"Strict-Transport-Security": f"max-age={HSTS_SECONDS}"}}},
        "serverless-pre-function": {
            "phase": "rewrite",
            "functions": [REMOVE_CLAIMED_IDENTITY],
            "_meta": {"priority": FIRST},
        },
    }


def _route(entrance: Entrance, route: GatewayRoute, first_byte: str) -> dict[str, Any]:
    return {
        "id": route.name,
        "name": route.name,
        "host": entrance.host,
        "uri": route.http.path,
        "methods": [route.http.method, "OPTIONS"],
        "enable_websocket": route.websocket,
        "plugins": dict(_plugins(entrance, route, first_byte)),
        "upstream": {
            "type": "roundrobin",
            "nodes": [{"host": route.upstream, "port": route.port, "weight": 1}],
            # The mesh, if there is one, chooses the service by the host of a request.
            "pass_host": "node",
            "retries": route.retries,
            "timeout": {"connect": route.timeout.seconds, **dict.fromkeys(("send", "read"), route.idle.seconds)},
        },
    }


def _plugins(entrance: Entrance, route: GatewayRoute, first_byte: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "client-control", {"max_body_size": route.http.max_body.units}
    if route.buffered.units:
        yield "limit-conn", _concurrency(route.concurrent)
    yield "cors", _cors(entrance, route)
    if route.first_byte:
        yield "serverless-post-function", {"phase": "log", "functions": [first_byte]}
    if not route.http.public:
        yield "serverless-pre-function", {"phase": "access", "functions": [SET_VERIFIED_IDENTITY]}
        yield "jwt-auth", {"key_claim_name": "iss", "store_in_ctx": True, "claims_to_verify": ["exp", "nbf"]}
    for limit in route.rate_limits:
        if isinstance(limit.limit, TokenBucket):
            yield from _limits(entrance, route, limit.limit)
    if route.circuit_breaker:
        yield "api-breaker", _breaker(route.circuit_breaker)


def _cors(entrance: Entrance, route: GatewayRoute) -> dict[str, Any]:
    return {
        "allow_origins": ",".join(entrance.origins),
        "allow_methods": f"{route.http.method},OPTIONS",
        "allow_headers": "Authorization,Content-Type,Idempotency-Key,X-Request-Id",
        "expose_headers": "X-Request-Id",
        "max_age": BROWSER_CACHE_SECONDS,
    }


def _limits(entrance: Entrance, route: GatewayRoute, bucket: TokenBucket) -> Iterator[tuple[str, dict[str, Any]]]:
    key = "remote_addr" if route.http.public else f"http_{TENANT_HEADER.lower().replace('-', '_')}"
    common = {"key": key, "key_type": "var", "rejected_code": TOO_MANY}
    yield (
        "limit-count",
        {
            **common,
            "count": bucket.burst,
            "time_window": math.ceil(bucket.burst / bucket.rate.per_second),
            "window_type": "sliding",
            "policy": "redis",
            "redis_host": entrance.redis_host,
            "redis_port": entrance.redis_port,
            **({"redis_ssl": True, "redis_ssl_verify": True} if entrance.redis_tls else {}),
            "redis_username": entrance.redis_user,
            "redis_password": environment_reference("REDIS_PASSWORD"),
            "redis_timeout": max(1, entrance.redis_timeout.units // 1000),
            "allow_degradation": True,
        },
    )
    yield (
        "limit-req",
        {**common, "rate": bucket.rate.per_second, "burst": bucket.burst, "nodelay": True, "policy": "local"},
    )


def _concurrency(most: int) -> dict[str, Any]:
    """Admit at most `most` simultaneous requests, because the disk has room for that many bodies.

    The plugin refuses further requests before it reads their bodies.
    """
    return {
        "conn": most,
        "burst": 0,
        "default_conn_delay": 0.1,
        "key": "route_id",
        "key_type": "var",
        "rejected_code": UNAVAILABLE,
    }


def _breaker(breaker: CircuitBreaker) -> dict[str, Any]:
    return {
        "break_response_code": UNAVAILABLE,
        "max_breaker_sec": breaker.max_break_duration.whole_seconds(),
        "unhealthy": {"http_statuses": list(FAILURES), "failures": breaker.consecutive_failures},
        "healthy": {"http_statuses": list(SUCCESSES), "successes": breaker.success_threshold},
    }
