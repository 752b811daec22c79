"""The gateway tier, with a route for each operation that the gateway offers over HTTP."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from pydantic import ValidationError
from voice_policies import Bytes, Duration, Fault, InvalidInputError, TokenBucket, faults_of

from components import images
from components.edge.apisix import PORTS, Entrance, GatewayRoute, program, resources
from components.edge.gateway import ApisixGateway
from components.files import file_text
from components.links import Link, Links
from components.network_policy import AddressBlock, Peer
from components.node import Dependency, Gateway, Node, Service
from components.operation import Operation
from components.secret_keys import CERTIFICATE, SecretForm, SecretKeys
from stack.model.call_graph import CallGraph, Edge
from stack.model.environments import Environment
from stack.model.links import scrape_link
from stack.model.manifest_yaml import documents
from stack.model.policy_bundles import outbound_call
from stack.model.settings import file_of, path_of
from stack.model.site import INTERNET, INTERNET_V6
from stack.model.tenant import Builder
from stack.voiceassistant import site
from stack.voiceassistant.objectives import first_byte_objective
from stack.voiceassistant.stores import Store, store

TOKENS = SecretKeys(
    name="gateway-jwt",
    keys=("public-key",),
    forms={
        "public-key": SecretForm(
            kind="public-key",
            external=True,
            meaning="the public RSA key of the tokens that identity-service signs, as PEM",
        )
    },
)
SLOW_UPLOAD = 10_000_000
"""Bits per second of a slow client: a home uplink."""
END = "#END\n"
"""Without this line APISIX treats the file as half-written. The file is JSON, but APISIX reads it as YAML. In YAML
the line is a comment."""


def components(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Builder]:
    """The gateway, if the graph has one with HTTP routes."""
    if (gateway := graph.gateway) and any(operation.http for operation in gateway.operations):
        yield partial(_gateway, graph, environment, links, gateway)


def _gateway(graph: CallGraph, environment: Environment, links: Links, gateway: Gateway) -> ApisixGateway:
    size = environment.server(gateway.name)
    edges = list(graph.edges_from(gateway))
    routes = _routes(gateway, edges, graph, environment)
    timeout, redis = _limit_store(gateway, graph)
    entrance = _entrance(gateway, redis, timeout, environment)
    return ApisixGateway(
        name=gateway.name,
        namespace=gateway.namespace,
        image=environment.third_party_image(images.APISIX),
        sizing=size.sizing,
        replicas=size.scale,
        files={
            "config.yaml": documents([program(entrance, routes)]),
            "apisix.yaml": file_text(resources(entrance, routes)) + END,
        },
        variables=_variables(entrance.host, redis.secret(gateway)),
        exposed_as="LoadBalancer" if environment.profile.load_balancer else "NodePort",
        address=f"https://{entrance.host}",
        links=links,
        mesh_proxy=environment.mesh_proxy,
        bodies=sum((route.buffered for route in routes), Bytes("1Mi")),
        ingress_grace=environment.settings.ingress_grace,
        longest_request=max(operation.deadline for operation in gateway.operations),
    )


def links(graph: CallGraph, _: Environment) -> Iterator[Link]:
    """Any address, Prometheus and the blackbox exporter reach the gateway. The gateway sends spans to the Collector."""
    gateway = graph.gateway
    if gateway is None:
        return
    pods = Peer(namespace=gateway.namespace, name=gateway.name, ports=())
    for name, cidr in (("anywhere", INTERNET), ("anywhere-v6", INTERNET_V6)):
        anywhere = AddressBlock(name=name, cidr=cidr, ports=())
        yield Link(source=anywhere, target=pods.model_copy(update={"ports": (PORTS.http, PORTS.https)}))
    yield scrape_link(graph.site, pods, ApisixGateway.scrape)
    yield Link(source=site.PROBER_PODS, target=pods.model_copy(update={"ports": (PORTS.https,)}))
    collector = Peer(namespace=site.OBSERVABILITY, name=site.COLLECTOR, ports=(site.COLLECTOR_HTTP_PORT,))
    yield Link(source=pods, target=collector)


def _variables(host: str, redis: SecretKeys) -> dict[str, tuple[SecretKeys, str]]:
    """The environment variables that the files refer to."""
    forms = {
        key: CERTIFICATE[key].model_copy(update={"external": True, "host": host})
        for key in ("certificate", "private-key")
    }
    tls = SecretKeys(name="gateway-tls", keys=tuple(forms), forms=forms)
    return {
        "JWT_PUBLIC_KEY": (TOKENS, "public-key"),
        "REDIS_PASSWORD": (redis, "password"),
        "TLS_CERTIFICATE": (tls, "certificate"),
        "TLS_PRIVATE_KEY": (tls, "private-key"),
    }


def _limit_store(gateway: Gateway, graph: CallGraph) -> tuple[Duration, Store]:
    """The Redis that counts the limits of all replicas, and the timeout of the gateway's call to that Redis.

    Raises `InvalidInputError` if the gateway calls no Redis.
    """
    call = next((edge for edge in graph.edges_from(gateway) if _is_redis(edge.callee)), None)
    redis = store(graph, call.callee.name) if call else None
    if call is None or redis is None:
        fault = Fault(gateway.name, "calls no Redis", "expected a call to Redis for the limits that its replicas share")
        raise InvalidInputError(str(gateway.location), [fault])
    return call.attempt_timeout, redis


def _entrance(gateway: Gateway, redis: Store, timeout: Duration, environment: Environment) -> Entrance:
    """The settings that all routes share. Raises `InvalidInputError` without a host name."""
    host = environment.settings.gateway_host
    if host is None:
        fault = Fault(path_of("gateway_host"), "is missing", "expected the host name that clients request")
        raise InvalidInputError(file_of(environment.name), [fault])
    first, _, domain = host.partition(".")
    return Entrance(
        host=host,
        origins=(f"https://app.{domain}" if first == "api" else f"https://{host}",),
        redis_host=redis.host,
        redis_port=redis.address.port,
        redis_tls=redis.tls,
        redis_user=gateway.name,
        redis_timeout=timeout,
        collector=f"{site.SITE.host(site.COLLECTOR, site.OBSERVABILITY)}:{site.COLLECTOR_HTTP_PORT}",
        trace_sample_ratio=environment.settings.trace_sample_ratio,
        workers=round(environment.server(gateway.name).sizing.cpu_limit.cores),
    )


def _is_redis(callee: Node) -> bool:
    return isinstance(callee, Dependency) and callee.protocol == "redis"


def _routes(gateway: Gateway, edges: list[Edge], graph: CallGraph, environment: Environment) -> list[GatewayRoute]:
    """Every route. Raises `InvalidInputError` with all policies of all routes that the gateway cannot express."""
    found: list[GatewayRoute] = []
    refusals: list[InvalidInputError] = []
    for operation in gateway.operations:
        for edge in edges:
            if edge.operation is operation and operation.http and isinstance(edge.callee, Service):
                try:
                    found.append(GatewayRoute.model_validate(_values(operation, edge, edge.callee, graph, environment)))
                except ValidationError as error:
                    refusals.append(InvalidInputError(edge.source, faults_of(error, GatewayRoute, edge.path)))
                except InvalidInputError as error:
                    refusals.append(error)
    if refusals:
        raise InvalidInputError.joined(refusals)
    return found


def _values(
    operation: Operation, edge: Edge, service: Service, graph: CallGraph, environment: Environment
) -> dict[str, Any]:
    call = outbound_call(edge, graph.site, mesh=False)
    return {
        "name": operation.name,
        "http": operation.http,
        "websocket": operation.transport == "websocket",
        "upstream": graph.site.http_host(service),
        "port": service.http_port,
        "timeout": call.timeout.attempt,
        "retries": edge.call.max_attempts - 1,
        "circuit_breaker": call.circuit_breaker,
        "rate_limits": operation.rate_limits,
        "concurrent": _concurrent(
            operation,
            call.timeout.attempt,
            environment.server(edge.caller.name).replicas,
            environment.profile.load_share,
        ),
        "latency": edge.operation.latency,
        "first_byte": first_byte_objective(graph, operation.name),
    }


def _concurrent(operation: Operation, timeout: Duration, replicas: int, load_share: float) -> int:
    """Largest number of simultaneous requests in one replica. The number suffices while another replica is down.

    Rate × (upload by a slow client + timeout) ÷ remaining replicas, but at least the largest burst of a rate limit.
    """
    rate = operation.load.per_second * load_share if operation.load else 0
    upload = operation.http.max_body.units * 8 / SLOW_UPLOAD if operation.http else 0
    bursts = [limit.limit.burst for limit in operation.rate_limits if isinstance(limit.limit, TokenBucket)]
    return max(math.ceil(rate * (upload + timeout.seconds) / max(1, replicas - 1)), *bursts, 1)
