from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components.component import Component
from components.operation import hard, operation, stage
from stack.model.platform import Platform
from tests.platforms import platform
from tests.small import gateway, models, service
from tests.stack.audit.rule_findings import READ, ROUTE, Manifests, of_manifests, verdict


class AsWritten:
    def __init__(self, component: Component, documents: list[dict[str, Any]]) -> None:
        self.component, self.documents = component, documents

    def __getattr__(self, name: str) -> Any:
        return getattr(self.component, name)

    def resources(self) -> Iterator[dict[str, Any]]:
        yield from self.documents


class ProdWith(Platform):
    def __init__(self, name: str, kind: str, **change: Any) -> None:
        real = platform("prod")
        super().__init__(real.tenant, real.environment)

        def altered(component: Component) -> Component | AsWritten:
            documents: list[dict[str, Any]] = [{**resource} for resource in component.resources()]
            for document in documents:
                if document["kind"] == kind:
                    document["spec"] = {**document["spec"], **change}
            return component if component.name != name else AsWritten(component, documents)

        self.__dict__["components"] = tuple(map(altered, real.components))


def test_n03_finds_a_service_that_does_not_admit_the_gateway() -> None:
    assert verdict("N03", platform("prod")).text == "holds"
    closed = verdict("N03", ProdWith("identity-service", "NetworkPolicy", ingress=[])).findings
    assert {each.path for each in closed} == {
        "gateway.identity-service-verify → identity-service.verify",
        "gateway.identity-service-login → identity-service.login",
    }


def test_n03_finds_a_caller_that_the_egress_proxy_does_not_admit() -> None:
    closed = verdict("N03", ProdWith("egress-proxy-b", "NetworkPolicy", ingress=[])).findings
    assert {each.path.partition(".")[0] for each in closed} == {"model-adapter", "voice-engine"}


def test_n04_finds_a_port_that_the_callee_does_not_serve() -> None:
    assert verdict("N04", platform("prod")).text == "holds"
    moved = [{"name": "http", "port": 8081}]
    found = verdict("N04", ProdWith("retrieval-service", "Service", ports=moved)).findings
    assert "knowledge-service → retrieval-service-grpc.voice-apps:9000" in {each.path for each in found}
    assert all("the Service has only the ports 8081:" in each.arithmetic for each in found)


@pytest.mark.parametrize(
    ("changed", "arithmetic"),
    [
        ({"selector": {"app": "b"}}, "its selector matches no pod: calls fail"),
        ({"ports": [{"port": 80, "targetPort": "grpc"}]}, "shop/a has no container port grpc: calls fail"),
        ({"ports": [{"port": 80, "targetPort": 9000}]}, "shop/a has no container port 9000: calls fail"),
        ({"ports": [{"port": 80, "targetPort": "http"}]}, None),
        ({"ports": [{"port": 80, "targetPort": 8080}]}, None),
        ({"ports": [{"port": 9000}]}, None),
        ({"selector": {"statefulset.kubernetes.io/pod-name": "members-1"}}, None),
        ({"selector": {"statefulset.kubernetes.io/pod-name": "members-2"}}, "its selector matches no pod: calls fail"),
        ({"selector": {"statefulset.kubernetes.io/pod-name": "a-0"}}, "its selector matches no pod: calls fail"),
        ({"selector": None}, None),
    ],
    ids=lambda value: None if isinstance(value, dict) else value or "holds",
)
def test_n04_finds_a_service_that_reaches_no_pod_or_no_port(changed: dict[str, Any], arithmetic: str | None) -> None:
    labels = {"app": "a"}
    ports = [{"name": "http", "containerPort": 8080}]
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "ports": ports}]}}
    metadata = {"name": "a", "namespace": "shop"}
    workload = {"kind": "Deployment", "metadata": metadata, "spec": {"template": pods}}
    members = {"kind": "StatefulSet", "metadata": {**metadata, "name": "members"}}
    stateful = {**members, "spec": {"replicas": 2, "template": {**pods, "metadata": {"labels": {"app": "members"}}}}}
    spec = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}], **changed}
    service = {"kind": "Service", "metadata": metadata, "spec": spec}
    found = verdict("N04", of_manifests(workload, stateful, service)).findings
    assert [each.arithmetic for each in found] == ([arithmetic] if arithmetic else [])


@pytest.mark.parametrize(("port", "count"), [("http", 0), ("grpc", 1), (9000, 0)], ids=["http", "unknown", "number"])
@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_n04_finds_a_probe_of_an_unknown_port_name(probe: str, port: str | int, count: int) -> None:
    for action in ("httpGet", "tcpSocket"):
        ports = [{"name": "http", "containerPort": 8080}]
        container = {"name": "a", "ports": ports, probe: {action: {"port": port}}}
        pods = {"metadata": {"labels": {}}, "spec": {"containers": [container]}}
        document = {"metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": pods}}
        found = verdict("N04", of_manifests({"kind": "Deployment", **document})).findings
        assert [each.field for each in found] == [f"{probe}.{action}.port"] * count


@pytest.mark.parametrize(
    ("host", "count"),
    [("a.shop.svc.cluster.local", 0), ("b.shop.svc.cluster.local", 1), ("api.example.com", 0)],
    ids=["a Service", "no Service", "outside the cluster"],
)
def test_n04_finds_a_route_of_the_mesh_to_an_unknown_service(host: str, count: int) -> None:
    metadata = {"name": "a", "namespace": "shop"}
    service = {"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}
    http = [{"route": [{"destination": {"host": host}}]}, {"redirect": {}}]
    routed = {"kind": "VirtualService", "metadata": metadata, "spec": {"http": http}}
    found = verdict("N04", of_manifests(service, routed)).findings
    assert [each.path for each in found] == ["VirtualService shop/a → b.shop"] * count


SIZES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("blocks", "pods", "count"),
    [
        (("169.254.20.10/32", "10.96.0.10/32"), True, 0),
        (("169.254.20.10/32",), True, 1),
        (("169.254.20.10/32", "10.96.0.10/32"), False, 1),
    ],
    ids=["all permitted", "no DNS Service", "no DNS pods"],
)
def test_n06_finds_dns_that_pods_cannot_reach(blocks: tuple[str, ...], *, pods: bool, count: int) -> None:
    peers: list[dict[str, Any]] = [{"ipBlock": {"cidr": cidr}} for cidr in blocks]
    peers += [{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}] if pods else []
    egress = [{"to": peers, "ports": [{"port": 53, "protocol": "UDP"}]}]
    policy = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "dns", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress},
    }
    template = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "a", "resources": SIZES}]}}
    pod = {"kind": "Deployment", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": template}}
    assert len(verdict("N06", of_manifests(policy, pod)).findings) == count
    closed = {**policy, "metadata": {"name": "dns", "namespace": "elsewhere"}}
    assert len(verdict("N06", of_manifests(closed, pod)).findings) == 1, "the policy is in another namespace"


def test_n06_adds_up_the_rules_of_the_policies_that_select_all_pods() -> None:
    def allowing(name: str, selector: dict[str, Any], *egress: dict[str, Any]) -> dict[str, Any]:
        spec = {"podSelector": selector, "policyTypes": ["Egress"], "egress": list(egress)}
        return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}

    def dns(*peers: dict[str, Any]) -> dict[str, Any]:
        return {"to": list(peers), "ports": [{"port": 53, "protocol": "UDP"}]}

    template = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "a", "resources": SIZES}]}}
    pod = {"kind": "Deployment", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": template}}
    cache, address = ({"ipBlock": {"cidr": cidr}} for cidr in ("169.254.20.10/32", "10.96.0.10/32"))
    rules = [
        dns({"podSelector": {}}),
        dns(cache),
        dns(address),
        {"ports": [{"port": 54}]},
        {"to": [{"podSelector": {}}]},
    ]
    everywhere = allowing("all", {}, {"ports": [{"port": 53, "protocol": "UDP"}]})
    assert verdict("N06", of_manifests(pod, everywhere)).findings == (), "a rule without destinations admits all"
    assert verdict("N06", of_manifests(pod, allowing("all", {}, *rules))).findings == ()
    (closed,) = verdict("N06", of_manifests(pod, allowing("one", {"matchLabels": {"app": "a"}}, *rules))).findings
    assert "169.254.20.10/32, the DNS pods: if the cluster's DNS" in closed.arithmetic
    over_tcp = allowing("all", {}, {"ports": [{"port": 53, "protocol": "TCP"}]})
    assert len(verdict("N06", of_manifests(pod, over_tcp)).findings) == 1, "resolvers ask over UDP"


@pytest.mark.parametrize(
    ("egress", "count"),
    [
        ({}, 0),
        ({"ports": [{"port": 1, "endPort": 65_535, "protocol": "UDP"}]}, 0),
        ({"ports": [{"protocol": "UDP"}]}, 0),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"podSelector": {}}]}, 0),
        ({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, {"podSelector": {}}]}, 1),
        ({"ports": [{"port": 53, "protocol": "TCP"}]}, 1),
        ({"ports": [{"port": "dns", "protocol": "UDP"}]}, 1),
    ],
    ids=["everything", "a range", "every port", "every address", "all but the Service", "TCP alone", "a named port"],
)
def test_n06_reads_ports_ranges_and_blocks_as_kubernetes_does(egress: dict[str, Any], count: int) -> None:
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [egress]}
    policy = {"kind": "NetworkPolicy", "metadata": {"name": "dns", "namespace": "shop"}, "spec": spec}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "a", "resources": SIZES}]}}
    pod = {"kind": "Deployment", "metadata": {"name": "a", "namespace": "shop"}, "spec": {"template": template}}
    assert len(verdict("N06", of_manifests(policy, pod)).findings) == count


def test_n03_names_the_service_or_proxy_that_does_not_admit_the_caller() -> None:
    (entrance,) = verdict("N03", of_manifests(nodes=(gateway(ROUTE), service("a", READ)))).findings
    assert entrance.arithmetic == "a does not admit the namespace edge on its HTTP port"
    caller = service("a", operation("run", stage(hard("llm.generate", "never")), p95="9s", deadline="60s"))
    proxies = verdict("N03", of_manifests(nodes=(caller, models()))).findings
    assert [each.arithmetic for each in proxies] == [
        "egress-proxy-a does not admit a, which calls api.one.example",
        "egress-proxy-b does not admit a, which calls api.two.example",
    ]


class Twins(Manifests):
    names: tuple[str, ...]

    @property
    def pods(self) -> tuple[dict[str, str], ...]:
        return tuple({"app.kubernetes.io/name": name} for name in self.names)


@pytest.mark.parametrize("rule", ["N01", "N02", "N03", "N05"])
def test_pods_of_the_same_name_in_another_namespace_change_nothing(rule: str) -> None:
    real = platform("prod")
    names = ("gateway", "identity-service", "rag-engine", "model-adapter", "egress-proxy-b", "postgresql", "prometheus")
    spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    closed = {"kind": "NetworkPolicy", "metadata": {"name": "closed", "namespace": "twins"}, "spec": spec}
    doubled = Platform(real.tenant, real.environment)
    twins = Twins(name="twins", namespace="twins", names=names, documents=(closed,))
    doubled.__dict__["components"] = (*real.components, twins)
    found = {each.path for each in verdict(rule, doubled).findings}
    assert {path for path in found if not path.startswith("twins/")} == set()


def served(name: str, *ports: int, namespace: str = "shop") -> dict[str, Any]:
    spec = {"ports": [{"port": port} for port in ports]}
    return {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def routed(*nodes: tuple[str, int]) -> dict[str, Any]:
    routes = [{"upstream": {"nodes": [{"host": f"{host}.svc.cluster.local", "port": port}]}} for host, port in nodes]
    data = {"apisix.yaml": json.dumps({"routes": routes}) + "\n#END\n"}
    return {"kind": "ConfigMap", "metadata": {"name": "gateway"}, "data": data}


def test_n04_finds_a_route_to_a_service_or_a_port_that_does_not_exist() -> None:
    empty = {"kind": "ConfigMap", "metadata": {"name": "empty"}}
    assert verdict("N04", of_manifests(empty, served("a", 8080, 9000), routed(("a.shop", 8080)))).findings == ()
    missing, closed = verdict(
        "N04", of_manifests(empty, served("a", 8080, 9000), routed(("a.shop", 8081), ("a.elsewhere", 8080)))
    ).findings
    assert missing.arithmetic == "no such Service: the call fails"
    assert closed.arithmetic == "the Service has only the ports 8080, 9000: the call fails"


@pytest.mark.parametrize("ending", ["-rw", "-ro", "-r"])
def test_n04_knows_the_services_that_cloudnativepg_creates(ending: str) -> None:
    pods = {"spec": {"containers": [{"name": "a", "resources": SIZES}]}}
    spec = {"instances": 2, "resources": SIZES, "template": pods}
    cluster = {"kind": "Cluster", "metadata": {"name": "store", "namespace": "shop"}, "spec": spec}
    pooler = {"kind": "Pooler", "metadata": {"name": "pool", "namespace": "shop"}, "spec": spec}
    made = of_manifests(cluster, pooler, routed((f"store{ending}.shop", 5432), ("pool.shop", 5432)))
    assert verdict("N04", made).text == "holds"
