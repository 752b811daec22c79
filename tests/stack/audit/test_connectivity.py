"""N03, N04, N06: closed entrances, names and ports that nothing serves, DNS out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from components.component import Component
from stack.model.platform import Platform
from tests.platforms import platform
from tests.stack.audit.rule_findings import of_manifests, verdict


class AsWritten:
    """A component whose resources are other ones."""

    def __init__(self, component: Component, documents: list[dict[str, Any]]) -> None:
        self.component, self.documents = component, documents

    def __getattr__(self, name: str) -> Any:
        return getattr(self.component, name)

    def resources(self) -> Iterator[dict[str, Any]]:
        yield from self.documents


class Changed(Platform):
    """Prod, of which one component renders its resources otherwise."""

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
    closed = verdict("N03", Changed("identity-service", "NetworkPolicy", ingress=[])).findings
    assert {each.path for each in closed} == {
        "gateway.identity-service-verify → identity-service.verify",
        "gateway.identity-service-login → identity-service.login",
    }


def test_n03_finds_a_caller_that_its_egress_proxy_does_not_admit() -> None:
    closed = verdict("N03", Changed("egress-proxy-b", "NetworkPolicy", ingress=[])).findings
    assert {each.path.partition(".")[0] for each in closed} == {"model-adapter", "voice-engine"}


def test_n04_finds_a_port_that_the_callee_does_not_serve() -> None:
    assert verdict("N04", platform("prod")).text == "holds"
    moved = [{"name": "http", "port": 8081}]
    found = verdict("N04", Changed("retrieval-service", "Service", ports=moved)).findings
    assert "knowledge-service → retrieval-service-grpc.voice-apps:9000" in {each.path for each in found}
    assert all("its ports are [8081]" in each.arithmetic for each in found)


SIZES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("blocks", "pods", "count"),
    [
        (("169.254.20.10/32", "10.96.0.10/32"), True, 0),
        (("169.254.20.10/32",), True, 1),
        (("169.254.20.10/32", "10.96.0.10/32"), False, 1),
    ],
)
def test_n06_finds_dns_out_of_reach(blocks: tuple[str, ...], *, pods: bool, count: int) -> None:
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
