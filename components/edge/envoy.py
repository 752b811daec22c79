"""Envoy's configuration as an egress proxy: TLS is passed through unopened, by the host name that it asks for (SNI).

Each caller has a listener of its own, and each of its hosts a filter chain. A connection that matches none (another
host, no host, no TLS) is closed, counted as `listener.<caller>.no_filter_chain_match` and logged. Envoy resolves the
name itself, so a caller that asks for one host by name reaches that host, whatever address it had in mind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voice_policies import ClosedModel

from components.node import Host, Port
from components.operation import Name

__all__ = ["AllowList"]

ADMIN_PORT = 9901
STATUS_PORT = 9902
LIVE_PATH = "/live"
READY_PATH = "/ready"
METRICS_PATH = "/stats/prometheus"
CONNECT_TIMEOUT = "1s"
"""To a host: three round trips across an ocean; callers that wait less give up on their own."""
HELLO_TIMEOUT = "2s"
"""For the first bytes of TLS, so that a silent connection holds no slot."""
MAX_CONNECTIONS = 10_000
"""Of one replica, at about 20 KiB of buffers and bookkeeping each: within its memory limit."""
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


class AllowList(ClosedModel):
    """The hosts that one caller may reach through one proxy, and its own port."""

    caller: Name
    port: Port
    hosts: tuple[Host, ...]


def configuration(allow_lists: Iterable[AllowList]) -> dict[str, Any]:
    """The whole bootstrap file. The administration interface answers the pod itself alone."""
    lists = list(allow_lists)
    hosts = {cluster_name(host): host for allowed in lists for host in allowed.hosts}
    return {
        "admin": {"address": _address("127.0.0.1", ADMIN_PORT)},
        "overload_manager": {
            "resource_monitors": [
                _extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=MAX_CONNECTIONS,
                )
            ]
        },
        "static_resources": {
            "listeners": [_status_listener(), *(_listener(allowed) for allowed in lists)],
            "clusters": [_admin_cluster(), *(_cluster(name, hosts[name]) for name in sorted(hosts))],
        },
    }


def cluster_name(host: Host) -> str:
    """How a host is called in Envoy's statistics: without dots, which would part the name."""
    return f"{host.host.replace('.', '_')}_{host.port}"


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _extension(name: str, message: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_EXTENSIONS}.{message}", **fields}}


def _listener(allowed: AllowList) -> dict[str, Any]:
    return {
        "name": allowed.caller,
        "stat_prefix": allowed.caller,
        "address": _address("0.0.0.0", allowed.port),  # noqa: S104 - the pod's own address; its network policy guards it
        "listener_filters_timeout": HELLO_TIMEOUT,
        "listener_filters": [
            _extension("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector")
        ],
        "filter_chains": [_passthrough(allowed.caller, host) for host in allowed.hosts],
        "access_log": [_refusal_log(allowed.caller)],
    }


def _passthrough(caller: str, host: Host) -> dict[str, Any]:
    name = cluster_name(host)
    return {
        "filter_chain_match": {"server_names": [host.host], "transport_protocol": "tls"},
        "filters": [
            _extension(
                "envoy.filters.network.tcp_proxy",
                "filters.network.tcp_proxy.v3.TcpProxy",
                stat_prefix=f"{caller}.{name}",
                cluster=name,
            )
        ],
    }


def _refusal_log(caller: str) -> dict[str, Any]:
    """A line for each connection that matched no filter chain: who asked, and for which host."""
    line = {"message": "refused", "caller": caller, "host": "%REQUESTED_SERVER_NAME%", "at": "%START_TIME%"}
    return {
        **_extension(
            "envoy.access_loggers.stdout",
            "access_loggers.stream.v3.StdoutAccessLog",
            log_format={"json_format": line},
        ),
        "filter": {"response_flag_filter": {"flags": ["NR"]}},
    }


def _cluster(name: str, host: Host) -> dict[str, Any]:
    """The first address that DNS gives, asked again as its time to live says."""
    return {
        "name": name,
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "V4_ONLY",
        "connect_timeout": CONNECT_TIMEOUT,
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 10}},
        "load_assignment": _endpoint(name, host.host, host.port),
    }


def _endpoint(name: str, host: str, port: int) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, port)}}]}],
    }


def _admin_cluster() -> dict[str, Any]:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": _endpoint("admin", "127.0.0.1", ADMIN_PORT),
    }


def _status_listener() -> dict[str, Any]:
    """Liveness, readiness and metrics; nothing else of the administration interface, which can also stop the process.

    Liveness is an answer of a worker itself: a proxy that is not ready yet, or no more, is alive.
    """
    routes: list[dict[str, Any]] = [
        {"match": {"path": LIVE_PATH}, "direct_response": {"status": 200}},
        *({"match": {"path": path}, "route": {"cluster": "admin"}} for path in (READY_PATH, METRICS_PATH)),
    ]
    manager = _extension(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="status",
        route_config={"virtual_hosts": [{"name": "status", "domains": ["*"], "routes": routes}]},
        http_filters=[_extension("envoy.filters.http.router", "filters.http.router.v3.Router")],
    )
    return {
        "name": "status",
        "stat_prefix": "status",
        "address": _address("0.0.0.0", STATUS_PORT),  # noqa: S104 - the pod's own address; its network policy guards it
        "filter_chains": [{"filters": [manager]}],
    }
