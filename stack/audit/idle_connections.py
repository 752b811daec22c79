"""T06, S02: hops that close a connection while the neighbouring hop still uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from voice_policies import KEEP_ALIVE, PING_INTERVAL, Duration

from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.platform import Platform

ENVOY_IDLE = Duration("1h")
"""Envoy's default idle timeout of a connection (envoyproxy.io, HttpProtocolOptions)."""
SIDECAR_FIELD = "inboundConnectionPool.http.idleTimeout"
NGINX_KEEP_ALIVE = re.compile(r"[\"']?keepalive_timeout[\"']?:\s*[\"']?(\d+)s")


def servers_outlast_proxies(platform: Platform) -> Iterator[Breach | None]:
    """Compare the idle timeout of each proxy in front of our services with the keep-alive of the services."""
    for path, field, idle in _proxies(platform):
        text = f"the proxy keeps an idle connection for {idle}, and the server closes it after {KEEP_ALIVE}"
        yield Breach(path, text, field, f"below {KEEP_ALIVE}") if idle >= KEEP_ALIVE else None


def _proxies(platform: Platform) -> Iterator[tuple[str, str, Duration]]:
    found = rendered(platform)
    for config in found.of_kind("ConfigMap"):
        for name, text in config.get("data", {}).items():
            for seconds in NGINX_KEEP_ALIVE.findall(text):
                yield f"ConfigMap {config['metadata']['name']}/{name}", "keepalive_timeout", Duration(f"{seconds}s")
    served = {policy["metadata"]["name"] for policy in found.of_kind("AuthorizationPolicy")}
    for name, idle in _sidecars(platform):
        if name in served:
            yield f"Sidecar {name}", SIDECAR_FIELD, idle


def _sidecars(platform: Platform) -> Iterator[tuple[str, Duration]]:
    """Each sidecar of the mesh with its idle timeout of inbound connections."""
    for sidecar in rendered(platform).of_kind("Sidecar"):
        pool = sidecar["spec"].get("inboundConnectionPool", {}).get("http", {})
        yield sidecar["metadata"]["name"], Duration(pool["idleTimeout"]) if "idleTimeout" in pool else ENVOY_IDLE


def pings_keep_connections_open(platform: Platform) -> Iterator[Breach | None]:
    """Compare the idle timeout of every hop of each WebSocket route with the interval between two pings."""
    for route in rendered(platform).gateway_routes:
        if route.get("enable_websocket"):
            idle = float(route["upstream"]["timeout"]["read"])
            text = (
                f"the gateway closes a WebSocket after {idle:g}s without a byte,"
                f" but pings come only every {PING_INTERVAL}"
            )
            found = Breach(f"route {route['id']}", text, "upstream.timeout.read", f"above {PING_INTERVAL}")
            yield found if idle <= PING_INTERVAL.seconds else None
    callees = {edge.callee.name for edge in platform.graph.edges if edge.operation.transport == "websocket"}
    for name, closed in _sidecars(platform):
        if name in callees:
            text = (
                f"the mesh closes a WebSocket after {closed} without a byte, but pings come only every {PING_INTERVAL}"
            )
            found = Breach(f"Sidecar {name}", text, SIDECAR_FIELD, f"above {PING_INTERVAL}")
            yield found if closed <= PING_INTERVAL else None


def gateway_timeouts(platform: Platform) -> Iterator[tuple[str, str]]:
    """Each route of the gateway with its timeouts."""
    for route in rendered(platform).gateway_routes:
        yield route["id"], ", ".join(f"{name} {value:g}s" for name, value in route["upstream"]["timeout"].items())


RULES = (
    Rule(
        id="T06",
        title="a server keeps idle connections longer than the proxy in front of it",
        severity="warning",
        rationale="if the server closes a connection while the proxy sends on it, the client gets a 502",
        source="nginx's and Envoy's pages on resets of idle connections; IDLE_TIMEOUT and KEEP_ALIVE of voice_policies",
        violates="a proxy with an idle timeout of 75s in front of servers that close idle connections after 75s",
        holds="a proxy with an idle timeout of 60s in front of the same servers",
        check=servers_outlast_proxies,
    ),
    Rule(
        id="S02",
        title="pings keep long connections open at every hop",
        severity="error",
        rationale="without pings, a hop's idle timeout closes every WebSocket on which nobody speaks for that time",
        source="apisix#7478",
        violates="a WebSocket route with a read timeout of 20s and a ping every 20s",
        holds="the same route with a read timeout of 60s",
        check=pings_keep_connections_open,
    ),
)
