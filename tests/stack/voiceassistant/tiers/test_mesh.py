from __future__ import annotations

from typing import Any

import pytest
from voice_policies import Bulkhead, CircuitBreaker, Duration, InvalidInputError

from components.mesh.policy import MeshDestination
from components.node import Gateway, Service
from components.operation import hard, operation, stage
from stack.model.platform import Platform
from stack.model.policy_bundles import addresses, outbound_call
from stack.model.site import Site
from stack.voiceassistant.site import APPS, SITE
from stack.voiceassistant.tiers import mesh
from tests.platforms import of_kind, platform, real_environment, resources, with_nodes
from tests.small import datastore, service

MESHED = ("staging", "prod")
METRICS = {"methods": ["GET"], "paths": ["/metrics"]}


def test_dev_has_no_mesh() -> None:
    assert [found["kind"] for found in resources("dev") if "istio" in found["apiVersion"]] == []
    assert [pod for pod in pod_templates("dev") if "sidecar.istio.io/inject" in pod["metadata"]["labels"]] == []


def pod_templates(environment: str) -> list[dict[str, Any]]:
    return [found["spec"]["template"] for found in of_kind(environment, "Deployment")]


@pytest.mark.parametrize("environment", MESHED)
def test_only_declared_callers_may_call_a_service_and_every_client_may_read_its_metrics(environment: str) -> None:
    declared = {
        (
            edge.caller.name,
            edge.callee.name,
            edge.callee.http_port if isinstance(edge.caller, Gateway) else edge.callee.grpc_port,
        )
        for edge in platform(environment).graph.edges
        if isinstance(edge.callee, Service)
    }
    allowed, open_to_all = set(), []
    for policy in of_kind(environment, "AuthorizationPolicy"):
        for rule in policy["spec"]["rules"]:
            (operation,) = [to["operation"] for to in rule["to"]]
            (port,) = operation["ports"]
            for principal in (name for each in rule.get("from", []) for name in each["source"]["principals"]):
                domain, _, namespace, _, account = principal.split("/")
                assert (domain, namespace) == ("cluster.local", "voice-gateway" if account == "gateway" else APPS)
                allowed.add((account, policy["metadata"]["name"], int(port)))
            if "from" not in rule:
                open_to_all.append({key: value for key, value in operation.items() if key != "ports"})
    assert allowed == declared
    assert open_to_all == [METRICS] * len(list(platform(environment).graph.services))


@pytest.mark.parametrize("environment", MESHED)
def test_each_breaker_that_a_bundle_assigns_to_the_mesh_has_a_destination_rule(environment: str) -> None:
    graph = platform(environment).graph
    promised = {
        (edge.caller.name, host, call.circuit_breaker)
        for edge in graph.edges
        for call in [outbound_call(edge, SITE, mesh=True)]
        if call.enforced_by.circuit_breaker == "mesh"
        for host in [(address.via or address.host).partition(":")[0] for address in call.addresses]
    }
    rules = {
        (rule["spec"]["workloadSelector"]["matchLabels"]["app.kubernetes.io/name"], rule["spec"]["host"]): rule["spec"]
        for rule in of_kind(environment, "DestinationRule")
    }
    assert rules.keys() == {(caller, host) for caller, host, _ in promised}
    for caller, host, breaker in promised:
        detection = rules[caller, host]["trafficPolicy"]["outlierDetection"]
        assert breaker is not None
        assert detection["consecutive5xxErrors"] == breaker.consecutive_failures
        assert detection["baseEjectionTime"] == f"{breaker.break_duration.seconds:.0f}s"


@pytest.mark.parametrize("environment", MESHED)
def test_the_mesh_does_not_retry_calls_to_services(environment: str) -> None:
    silent = {
        host
        for found in of_kind(environment, "VirtualService")
        for host in found["spec"]["hosts"]
        if all(route["retries"] == {"attempts": 0} for route in found["spec"]["http"])
    }
    called = {
        name
        for service in platform(environment).graph.services
        for name in (SITE.http_host(service), SITE.grpc_host(service))
    }
    assert silent == called


@pytest.mark.parametrize("environment", MESHED)
def test_each_attempt_timeout_that_a_bundle_assigns_to_the_mesh_has_a_virtual_service(environment: str) -> None:
    promised = {
        (service.name, address.host, call.operation, call.timeout.attempt)
        for service in platform(environment).microservices
        for call in service.bundle.outbound
        if call.enforced_by.attempt_timeout == "mesh"
        for address in call.addresses
    }
    assert promised
    bounded = [
        (match, found["spec"]["hosts"], route)
        for found in of_kind(environment, "VirtualService")
        for route in found["spec"]["http"]
        for match in route.get("match", [])
    ]
    assert {
        (
            match["sourceLabels"]["app.kubernetes.io/name"],
            host,
            match["uri"]["exact"].rpartition("/")[2].lower(),
            Duration(route["timeout"]),
        )
        for match, (host,), route in bounded
    } == promised
    assert all(route["route"] == [{"destination": {"host": host}}] for _, (host,), route in bounded)


@pytest.mark.parametrize("environment", MESHED)
def test_each_member_knows_exactly_the_hosts_of_its_calls_and_the_collector(environment: str) -> None:
    graph = platform(environment).graph
    for sidecar in of_kind(environment, "Sidecar"):
        (listener,) = sidecar["spec"]["egress"]
        caller = graph.nodes[sidecar["metadata"]["name"]]
        known = {host.partition("/")[2] for host in listener["hosts"]}
        reached = {
            (address.via or address.host).partition(":")[0]
            for edge in graph.edges_from(caller)
            for address in addresses(edge, SITE)
        }
        if isinstance(caller, Gateway):
            services = {edge.callee for edge in graph.edges_from(caller) if isinstance(edge.callee, Service)}
            reached = reached - {SITE.grpc_host(found) for found in services} | {
                SITE.http_host(found) for found in services
            }
        assert known == reached | {"otel-collector.voice-observability.svc.cluster.local"}
        assert all(host.split("/")[0] == host.split(".")[1] for host in listener["hosts"])


@pytest.mark.parametrize("environment", MESHED)
def test_every_service_and_the_gateway_are_members_and_every_service_requires_mutual_tls(environment: str) -> None:
    members = {
        (
            pod["metadata"]["labels"]["app.kubernetes.io/name"],
            pod["metadata"]["annotations"].get("traffic.sidecar.istio.io/includeInboundPorts"),
        )
        for pod in pod_templates(environment)
        if pod["metadata"]["labels"].get("sidecar.istio.io/inject") == "true"
    }
    services = {service.name for service in platform(environment).graph.services}
    assert members == {*((name, None) for name in services), ("gateway", "")}
    strict = {
        found["spec"].get("selector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
        for found in of_kind(environment, "PeerAuthentication")
        if found["spec"]["mtls"] == {"mode": "STRICT"}
    }
    assert strict == {None, *services}


def test_a_breaker_that_the_mesh_cannot_express_is_refused() -> None:
    breaker = CircuitBreaker.model_validate(
        {"consecutive_failures": None, "failure_ratio": "50%", "break_duration": "1m"}
    )
    with pytest.raises(
        ValueError, match="without consecutive_failures: set it, because the mesh supports no other condition"
    ):
        MeshDestination(host="a.b.svc.cluster.local", http=True, circuit_breaker=breaker)


def test_a_go_bulkhead_limits_requests_to_services_and_connections_to_stores() -> None:
    read = operation("read", p95="10ms", deadline="50ms")
    calls = stage(
        hard("b.read", "idempotent", circuit_breaker="off", bulkhead=Bulkhead(max_concurrent=7)),
        hard("store.read", "idempotent", circuit_breaker="off", bulkhead=Bulkhead(max_concurrent=3)),
    )
    caller = service("a", operation("run", calls, p95="1s", deadline="2s"), language="go")
    small = Platform(with_nodes(caller, service("b", read), datastore("store", read)), real_environment("prod"))
    made: list[dict[str, Any]] = [
        dict(resource)
        for build in mesh.components(small.graph, small.environment, small.links)
        for resource in build().resources()
    ]
    rules = [resource["spec"] for resource in made if resource["kind"] == "DestinationRule"]
    assert {rule["host"]: rule["trafficPolicy"] for rule in rules} == {
        "b-grpc.shop.svc.cluster.local": {"connectionPool": {"http": {"http2MaxRequests": 7}}},
        "store.stores.svc.cluster.local": {"connectionPool": {"tcp": {"maxConnections": 3}}},
    }


def test_two_calls_to_one_host_with_different_policies_are_refused_with_both_paths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def other(edge: Any, site: Site, *, mesh: bool) -> Any:
        call = outbound_call(edge, site, mesh=mesh)
        if edge.call.name == "postgresql.write" and call.circuit_breaker:
            tighter = call.circuit_breaker.model_copy(update={"consecutive_failures": 2})
            return call.model_copy(update={"circuit_breaker": tighter})
        return call

    monkeypatch.setattr(mesh, "outbound_call", other)
    small = Platform(platform("prod").tenant, platform("prod").environment)
    with pytest.raises(InvalidInputError, match="disagree on the policy of postgresql-pooler") as refused:
        assert small.components
    assert "postgresql.read" in str(refused.value)
