"""Envoy's configuration as an egress proxy. It passes TLS through without decrypting it.

Each caller has its own listener. Each host of a caller has a filter chain that matches the host name in the TLS
handshake (SNI). If a connection matches no chain (another host, no host name, no TLS), Envoy closes the connection,
counts it as `listener.<caller>.no_filter_chain_match` and logs it. Envoy resolves the host name itself, so the address
that the caller dialled does not matter.

The listeners of the callers and the clusters of their hosts are in two files. Envoy reads these files again when
kubelet replaces them. So a new caller or host restarts no proxy. A reload closes an open connection only if its
listener or its host has left the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voice_policies import ClosedModel

from components.node import Host, Port
from components.operation import Name

__all__ = ["CLUSTERS", "FILE_NAME", "LISTENERS", "AllowList"]

ADMIN_PORT = 9901
STATUS_PORT = 9902
LIVE_PATH = "/live"
READY_PATH = "/ready"
METRICS_PATH = "/stats/prometheus"
FILE_NAME = "envoy.json"
"""The bootstrap file, which Envoy reads only at its start."""
LISTENERS, CLUSTERS = "listeners.json", "clusters.json"
"""The files of the allow-lists, which Envoy reloads."""
ALLOW_LISTS_PATH = "/etc/envoy-allow-lists"
CONNECT_TIMEOUT = "1s"
"""Longest time to connect to a host. Three round trips across an ocean take 3 × 0.3 s = 0.9 s. A caller whose own
timeout is shorter gives up earlier."""
HELLO_TIMEOUT = "2s"
"""Longest wait for the first bytes of TLS, so that a silent connection does not use up one of `MAX_CONNECTIONS`."""
MAX_CONNECTIONS = 10_000
"""Maximum number of connections of one replica. 10,000 connections of about 20 KiB fit in the memory limit."""
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


class AllowList(ClosedModel):
    """The hosts that one caller may reach through one proxy, and the port of that caller's listener."""

    caller: Name
    port: Port
    hosts: tuple[Host, ...]


def bootstrap(node: str) -> dict[str, Any]:
    """The bootstrap file of the proxy with the name `node`. The admin interface listens on localhost only."""
    return {
        # Envoy requires `id` and `cluster` if it reads resources from files.
        "node": {"id": node, "cluster": node},
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
        "static_resources": {"listeners": [_status_listener()], "clusters": [_admin_cluster()]},
        "dynamic_resources": {"lds_config": _reloaded(LISTENERS), "cds_config": _reloaded(CLUSTERS)},
    }


def allow_list_files(allow_lists: Iterable[AllowList]) -> dict[str, dict[str, Any]]:
    """File name → content. One file has the listeners of the callers, the other has the clusters of their hosts."""
    lists = list(allow_lists)
    hosts = {cluster_name(host): host for allowed in lists for host in allowed.hosts}
    return {
        LISTENERS: _resources("listener.v3.Listener", map(_listener, lists)),
        CLUSTERS: _resources("cluster.v3.Cluster", (_cluster(name, hosts[name]) for name in sorted(hosts))),
    }


def _reloaded(file: str) -> dict[str, Any]:
    """A source that Envoy reads again when kubelet swaps the directory's symbolic link."""
    source = {"path": f"{ALLOW_LISTS_PATH}/{file}", "watched_directory": {"path": ALLOW_LISTS_PATH}}
    return {"resource_api_version": "V3", "path_config_source": source}


def _resources(message: str, resources: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"resources": [{"@type": f"type.googleapis.com/envoy.config.{message}", **each} for each in resources]}


def cluster_name(host: Host) -> str:
    """Name of a host in Envoy's statistics, without dots, because dots separate the parts of a statistic's name."""
    return f"{host.host.replace('.', '_')}_{host.port}"


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _extension(name: str, message: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_EXTENSIONS}.{message}", **fields}}


def _listener(allowed: AllowList) -> dict[str, Any]:
    return {
        "name": allowed.caller,
        "stat_prefix": allowed.caller,
        "address": _address("0.0.0.0", allowed.port),  # noqa: S104 - the NetworkPolicy admits only declared callers
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
    """A log line for each connection that matched no filter chain: the caller, and the requested host."""
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
    """A cluster that uses the first address that DNS returns. Envoy resolves the name every 5 s, its default."""
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
    """A listener for liveness, readiness and metrics.

    The listener hides the rest of the admin interface, which can stop the process. A worker thread answers the liveness
    probe itself. So a proxy still counts as alive while it is not ready or is draining.
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
        "address": _address("0.0.0.0", STATUS_PORT),  # noqa: S104 - the NetworkPolicy admits only declared callers
        "filter_chains": [{"filters": [manager]}],
    }
