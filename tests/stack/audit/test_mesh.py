"""S03: calls that the mesh refuses, and calls that it permits although nobody declares them."""

from __future__ import annotations

from typing import Any

import pytest

from components.network_policy import NAME_LABEL
from components.operation import hard, operation, stage
from stack.audit.finding import Finding
from tests import toy
from tests.small import gateway, service
from tests.stack.audit.rule_findings import READ, ROUTE, of_manifests, verdict

CALLER = service("b", operation("run", stage(hard("a.read", "idempotent")), p95="1s", deadline="2s"))
NODES = (service("a", READ), CALLER, gateway(ROUTE))
HOSTS = {"b": ["shop/a-grpc.shop.svc.cluster.local"], "gateway": ["shop/a.shop.svc.cluster.local"], "a": []}
NAMESPACES = {"a": "shop", "b": "shop", "gateway": "edge"}


def document(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": NAMESPACES.get(name, "shop")}, "spec": spec}


def of(name: str) -> dict[str, Any]:
    return {"matchLabels": {NAME_LABEL: name}}


def pods(name: str, **labels: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {NAME_LABEL: name, **labels}}, "spec": {"containers": [{"name": name}]}}
    return document("Deployment", name, template=template)


def sidecar(name: str, *hosts: str, mode: str = "REGISTRY_ONLY") -> dict[str, Any]:
    selector = {"labels": {NAME_LABEL: name}}
    policy = {"mode": mode}
    egress = [{"hosts": list(hosts or HOSTS[name])}]
    return document("Sidecar", name, workloadSelector=selector, outboundTrafficPolicy=policy, egress=egress)


def rule(port: int, *principals: str) -> dict[str, Any]:
    names = [f"cluster.local/{each}" for each in principals]
    return {"from": [{"source": {"principals": names}}], "to": [{"operation": {"ports": [str(port)]}}]}


FROM_B, FROM_GATEWAY = rule(9000, "ns/shop/sa/b"), rule(8080, "ns/edge/sa/gateway")
METRICS = {"to": [{"operation": {"ports": ["8080"], "methods": ["GET"], "paths": ["/metrics"]}}]}


def authorization(*rules: dict[str, Any], action: str = "ALLOW") -> dict[str, Any]:
    return document("AuthorizationPolicy", "a", selector=of("a"), action=action, rules=list(rules))


def authentication(name: str = "a", mode: str = "STRICT", port: str = "8080") -> dict[str, Any]:
    ports = {port: {"mode": "PERMISSIVE"}}
    return document("PeerAuthentication", name, selector=of(name), mtls={"mode": mode}, portLevelMtls=ports)


def default(mode: str = "STRICT") -> dict[str, Any]:
    return document("PeerAuthentication", "default", mtls={"mode": mode})


MEMBER = {"sidecar.istio.io/inject": "true"}
DOCUMENTS: dict[str, dict[str, Any] | None] = {
    "pods of a": pods("a", **MEMBER),
    "pods of b": pods("b", **MEMBER),
    "sidecar of a": sidecar("a"),
    "sidecar of b": sidecar("b"),
    "sidecar of the gateway": sidecar("gateway"),
    "default": default(),
    "authentication": authentication(),
    "authorization of a": authorization(FROM_B, FROM_GATEWAY, METRICS),
    "authorization of b": document("AuthorizationPolicy", "b", selector=of("b"), rules=[METRICS]),
}


def found(*, mesh: bool = True, **changes: dict[str, Any] | None) -> tuple[Finding, ...]:
    named = {name.replace("_", " "): value for name, value in changes.items()}
    documents = (each for each in {**DOCUMENTS, **named}.values() if each)
    looked_at = of_manifests(*documents, nodes=NODES)
    settings = toy.ENVIRONMENT.settings.model_copy(update={"mesh": mesh})
    looked_at.environment = looked_at.environment.model_copy(update={"settings": settings})
    return verdict("S03", looked_at).findings


def test_s03_holds_if_the_mesh_permits_exactly_the_declared_calls() -> None:
    assert found() == ()
    assert found(authentication=None) == (), "the default of the namespace applies"
    assert found(default=None, mesh=False) == (), "the environment has no mesh"


@pytest.mark.parametrize(
    "changes",
    [
        {"default": None},
        {"default": default("PERMISSIVE")},
        {"default": document("PeerAuthentication", "default")},
        {"default": document("PeerAuthentication", "b", selector=of("b"), mtls={"mode": "STRICT"})},
    ],
    ids=["no default", "permissive", "no mode", "only for one service"],
)
def test_s03_finds_a_namespace_that_does_not_require_mutual_tls(changes: dict[str, Any]) -> None:
    assert [each.path for each in found(**changes)] == ["shop/a: mutual TLS", "shop/b: mutual TLS"]


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        (authentication(mode="PERMISSIVE"), 1),
        (authentication(mode="DISABLE"), 1),
        (authentication(port="9000"), 1),
        (authentication(port="8080"), 0),
        (document("PeerAuthentication", "a", selector=of("a")), 0),
    ],
    ids=["permissive", "disabled", "gRPC port", "HTTP port", "no mode"],
)
def test_s03_finds_a_service_that_accepts_plain_text(policy: dict[str, Any], count: int) -> None:
    assert [each.path for each in found(authentication=policy)] == ["shop/a: mutual TLS"] * count


@pytest.mark.parametrize(
    ("policy", "paths"),
    [
        (None, {"* → a:*", "ns/shop/sa/b → a:9000", "ns/edge/sa/gateway → a:8080"}),
        (authorization(FROM_B, action="DENY"), {"* → a:*", "ns/shop/sa/b → a:9000", "ns/edge/sa/gateway → a:8080"}),
        (authorization(), {"ns/shop/sa/b → a:9000", "ns/edge/sa/gateway → a:8080"}),
        (authorization(FROM_B), {"ns/edge/sa/gateway → a:8080"}),
        (authorization(FROM_B, FROM_GATEWAY, {}), {"* → a:*"}),
        (authorization(FROM_B, FROM_GATEWAY, rule(9000, "ns/shop/sa/c")), {"ns/shop/sa/c → a:9000"}),
        (authorization(rule(8080, "ns/shop/sa/b"), FROM_GATEWAY), {"ns/shop/sa/b → a:8080", "ns/shop/sa/b → a:9000"}),
    ],
    ids=["no policy", "only a denial", "no rule", "no gateway", "everybody", "a stranger", "another port"],
)
def test_s03_finds_callers_that_the_policy_refuses_or_admits_by_mistake(
    policy: dict[str, Any] | None, paths: set[str]
) -> None:
    assert {each.path for each in found(authorization_of_a=policy)} == paths


def test_s03_finds_a_call_that_the_proxy_of_the_caller_refuses() -> None:
    (refused,) = found(sidecar_of_b=sidecar("b", "shop/another.shop.svc.cluster.local"))
    assert (refused.path, refused.proposal) == ("b.run → a.read", "a-grpc.shop.svc.cluster.local")
    (refused,) = found(sidecar_of_the_gateway=sidecar("gateway", *HOSTS["b"]))
    assert (refused.path, refused.proposal) == ("gateway.read → a.read", "a.shop.svc.cluster.local")


@pytest.mark.parametrize("open_sidecar", [None, sidecar("b", mode="ALLOW_ANY")], ids=["no Sidecar", "ALLOW_ANY"])
def test_s03_finds_a_proxy_that_reaches_every_host(open_sidecar: dict[str, Any] | None) -> None:
    assert [each.path for each in found(sidecar_of_b=open_sidecar)] == ["shop/b: Sidecar"]


def test_s03_finds_pods_without_a_proxy() -> None:
    assert [each.path for each in found(pods_of_b=pods("b"))] == ["shop/b: proxy"]
