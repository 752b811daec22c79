"""R09: libraries and proxies that retry by default, as of 2026-11.

Each row is the default of the version that was current in that month. `source` names the documentation of the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from voice_policies import RetryCondition

from components.node import Dependency, Gateway, Service
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.call_graph import Edge
from stack.model.platform import Platform

EVERY_TRANSIENT: tuple[RetryCondition, ...] = (
    "connection_failed",
    "attempt_timeout",
    "unavailable",
    "resource_exhausted",
)
"""Conditions of a library that retries after failed connections, timeouts and error answers."""
SENT_OR_NOT: tuple[RetryCondition, ...] = ("connection_failed", "attempt_timeout")
"""Conditions of a library that retries after failed connections and timeouts, but not after error answers."""
ANSWERED: tuple[RetryCondition, ...] = ("connection_failed", "unavailable", "resource_exhausted")
"""Conditions of a library that retries after failed connections and error answers, but not after timeouts."""
PROXIED: tuple[RetryCondition, ...] = ("connection_failed", "unavailable")
"""Conditions of a proxy or client that retries only after failed connections and answers of unavailable callees."""


@dataclass(frozen=True, slots=True)
class LibraryDefault:
    """The retries that a library makes if its callers configure none.

    The audit assumes that the library has no retry budget.
    """

    retries: int
    conditions: tuple[RetryCondition, ...]
    setting: str
    """The library's parameter for retries, in most rows with the value that turns retries off."""
    source: str
    jitter: bool = True
    """True if the backoff is random."""
    timeout: str = ""
    """The library's own timeout, if it is longer than a typical operation's deadline."""


DEFAULTS: dict[str, LibraryDefault] = {
    "openai-python": LibraryDefault(
        2, EVERY_TRANSIENT, "max_retries", "github.com/openai/openai-python, Retries and Timeouts", timeout="600s"
    ),
    "openai-node": LibraryDefault(
        2, EVERY_TRANSIENT, "maxRetries", "github.com/openai/openai-node, Retries and Timeouts", timeout="600s"
    ),
    "anthropic-python": LibraryDefault(
        2, EVERY_TRANSIENT, "max_retries", "docs.claude.com, Python SDK, Retries and Timeouts", timeout="600s"
    ),
    "redis-py": LibraryDefault(3, SENT_OR_NOT, "retry=Retry(NoBackoff(), 0)", "redis-py 6.0.0, release notes"),
    "go-redis": LibraryDefault(3, SENT_OR_NOT, "MaxRetries: -1", "pkg.go.dev/github.com/redis/go-redis/v9, Options"),
    "elasticsearch-py": LibraryDefault(
        3, ANSWERED, "max_retries=0", "elastic.co, Python client, Configuration", jitter=False
    ),
    "boto3": LibraryDefault(
        4, EVERY_TRANSIENT, "Config(retries={'total_max_attempts': 1})", "boto3 guide, Retries (legacy mode)"
    ),
    "aws-sdk-go-v2": LibraryDefault(2, EVERY_TRANSIENT, "WithRetryMaxAttempts(1)", "AWS SDK for Go v2, Retries"),
    "pymilvus": LibraryDefault(75, PROXIED, "retry_times=1", "pymilvus, decorators.retry_on_rpc_failure", jitter=False),
    "urllib3": LibraryDefault(3, SENT_OR_NOT, "retries=False", "urllib3 user guide, Retrying requests", jitter=False),
    "apisix": LibraryDefault(
        1,
        SENT_OR_NOT,
        "upstream.retries: 0",
        "apisix.apache.org, Admin API: one retry for each further upstream node",
        jitter=False,
    ),
    "envoy": LibraryDefault(1, PROXIED, "num_retries: 0", "envoyproxy.io, config.route.v3.RetryPolicy"),
    "istio": LibraryDefault(2, PROXIED, "retries.attempts: 0", "istio.io, VirtualService, HTTPRetry"),
    "dapr": LibraryDefault(3, PROXIED, "maxRetries: 0", "docs.dapr.io, Default resiliency policies", jitter=False),
    "kong": LibraryDefault(5, SENT_OR_NOT, "retries: 0", "developer.konghq.com, Service, retries", jitter=False),
    "ingress-nginx": LibraryDefault(
        2, SENT_OR_NOT, "proxy-next-upstream-tries: 1", "kubernetes.github.io/ingress-nginx, ConfigMap", jitter=False
    ),
}
"""Library → its default. `retries` excludes the first attempt."""


@dataclass(frozen=True, slots=True)
class ClientRetry:
    """A client library that retries on an edge, by default or because its callers configure it."""

    library: str
    retries: int
    conditions: tuple[RetryCondition, ...]
    jitter: bool


def client_retries(edge: Edge) -> Iterator[ClientRetry]:
    """The client libraries that make several attempts of the call of an edge.

    A library that is not in `DEFAULTS` retries only if the catalogue declares its retries.
    """
    for client in edge.callee.clients if isinstance(edge.callee, Dependency) else ():
        default = DEFAULTS.get(client.library)
        retries = client.retries if client.retries is not None else default.retries if default else 0
        if retries and client.used_by(edge.caller):
            conditions = default.conditions if default else EVERY_TRANSIENT
            yield ClientRetry(client.library, retries, conditions, default is None or default.jitter)


def hidden_layers(platform: Platform) -> Iterator[Breach | None]:
    """Check that client libraries with a default have their retries set, and that mesh and gateway add no retries."""
    dependencies = [node for node in platform.graph.nodes.values() if isinstance(node, Dependency)]
    for dependency in dependencies:
        for client in dependency.clients:
            default = DEFAULTS.get(client.library)
            yield _hidden(dependency, client.library, default) if default and client.retries is None else None
    yield from (_route(name, route) for name, route in _mesh_routes(platform))
    yield from _unrouted(platform)
    yield from _gateway_routes(platform)


def _hidden(dependency: Dependency, library: str, default: LibraryDefault) -> Breach:
    waits = f" of {default.timeout} each" if default.timeout else ""
    return Breach(
        f"{dependency.name} by {library}",
        f"{library} makes 1 + {default.retries} attempts{waits} by default, and the catalogue sets no retries for it"
        f" ({default.source})",
        f"{dependency.name}.clients: retries, and {default.setting} in its callers",
        "retries=0",
        dependency.location,
    )


def _mesh_routes(platform: Platform) -> Iterator[tuple[str, dict[str, Any]]]:
    for service in rendered(platform).of_kind("VirtualService"):
        name = f"{service['metadata'].get('namespace', 'default')}/{service['metadata']['name']}"
        yield from ((f"VirtualService {name}", route) for route in service["spec"].get("http", ()))


def _route(name: str, route: dict[str, Any]) -> Breach | None:
    if "retries" not in route:
        return _by_default(name, "istio", "the route does not set the retries", "spec.http[].retries.attempts")
    if more := route["retries"].get("attempts", 0):
        text = f"the mesh makes 1 + {more} attempts, and no call declares them"
        return Breach(name, text, "spec.http[].retries.attempts", "0")
    return None


def _unrouted(platform: Platform) -> Iterator[Breach | None]:
    """The hosts of called services without a VirtualService. Istio retries calls to such a host by its default."""
    if not platform.environment.settings.mesh:
        return
    routed = {
        host for service in rendered(platform).of_kind("VirtualService") for host in service["spec"].get("hosts", ())
    }
    site = platform.site
    for callee in platform.graph.services:
        callers = {type(edge.caller) for edge in platform.graph.edges_to(callee)}
        hosts = {Service: site.grpc_host(callee), Gateway: site.http_host(callee)}
        for host in (hosts[kind] for kind in hosts.keys() & callers):
            found = _by_default(host, "istio", "no VirtualService sets the retries", "VirtualService: retries.attempts")
            yield None if host in routed else found


def _gateway_routes(platform: Platform) -> Iterator[Breach | None]:
    """The routes of the gateway that retry more often than their calls declare."""
    declared = {
        edge.operation.name: edge.call.max_attempts - 1
        for edge in platform.graph.edges
        if isinstance(edge.caller, Gateway) and isinstance(edge.callee, Service)
    }
    for route in rendered(platform).gateway_routes:
        path, field, most = f"route {route['id']}", "upstream.retries", declared.get(route["id"], 0)
        if (retries := route["upstream"].get("retries")) is None:
            yield _by_default(path, "apisix", "the route does not set the retries", field)
        else:
            text = f"the gateway makes 1 + {retries} attempts, and the catalogue declares 1 + {most}"
            yield Breach(path, text, field, str(most)) if retries > most else None


def _by_default(path: str, proxy: str, why: str, field: str) -> Breach:
    default = DEFAULTS[proxy]
    text = f"{proxy} makes 1 + {default.retries} attempts by default, and {why} ({default.source})"
    return Breach(path, text, field, "0")


RULES = (
    Rule(
        id="R09",
        title="no library or proxy retries by its own default",
        severity="warning",
        rationale="an SDK's default retries multiply the declared attempts, and the declared policies do not show them",
        source="each library's documentation, listed in stack/audit/library_defaults.py",
        violates='Client(library="openai-python"), whose default is 2 retries of 600s each',
        holds='Client(library="openai-python", retries=0)',
        check=hidden_layers,
    ),
)
