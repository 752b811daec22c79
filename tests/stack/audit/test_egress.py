from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from components.edge.egress_proxy import EgressProxy
from components.edge.envoy import LISTENERS
from components.links import Link, Links, peer
from components.network_policy import AddressBlock, Peer
from components.operation import hard, operation, stage
from stack.model.environments import environment
from stack.model.platform import Platform
from stack.model.settings import ApiServer
from stack.voiceassistant import TENANT
from stack.voiceassistant.site import STORE_LABEL
from tests.platforms import platform
from tests.small import models, service
from tests.stack.audit.rule_findings import of_manifests, verdict

RAG_ENGINE = peer("voice-apps", "rag-engine")


def links_of_prod_without(source: Peer, target: str) -> Links:
    return Links(link for link in platform("prod").links if (link.source, link.target.name) != (source, target))


class ProdWith(Platform):
    def __init__(self, name: str, **update: object) -> None:
        real = platform("prod")
        super().__init__(real.tenant, real.environment)
        self.__dict__["components"] = tuple(
            found.model_copy(update=update) if found.name == name else found for found in real.components
        )


def proxy_b() -> EgressProxy:
    (found,) = [each for each in platform("prod").components if each.name == "egress-proxy-b"]
    assert isinstance(found, EgressProxy)
    return found


def n05(**update: object) -> set[tuple[str, str]]:
    findings = verdict("N05", ProdWith("egress-proxy-b", **update)).findings
    return {(found.path.replace("egress-proxy-b → ", ""), found.arithmetic.partition(",")[0]) for found in findings}


def test_n05_finds_a_host_that_only_another_caller_declared() -> None:
    adapter, voice = proxy_b().allow_lists
    lists = (adapter, voice.model_copy(update={"hosts": (*voice.hosts, *adapter.hosts)}))
    assert n05(allow_lists=lists) == {("voice-engine → api.mistral.ai:443", "open")}


def test_n05_finds_a_declared_host_that_the_allow_list_lacks() -> None:
    assert n05(allow_lists=proxy_b().allow_lists[:1]) == {("voice-engine → speech.googleapis.com:443", "declared")}


def test_n05_finds_two_callers_whose_ports_are_exchanged() -> None:
    adapter, voice = proxy_b().allow_lists
    lists = (adapter.model_copy(update={"port": voice.port}), voice.model_copy(update={"port": adapter.port}))
    assert n05(allow_lists=lists) == {
        ("model-adapter → speech.googleapis.com:443", "open"),
        ("voice-engine → api.mistral.ai:443", "open"),
        ("model-adapter → api.mistral.ai:443", "declared"),
        ("voice-engine → speech.googleapis.com:443", "declared"),
    }


def test_n05_finds_a_proxy_that_may_reach_no_host() -> None:
    assert {closed for _, closed in n05(outward=())} == {"declared"}


def test_n05_finds_a_service_that_bypasses_the_proxy() -> None:
    block = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=(443,))
    links = Links([*platform("prod").links, Link(RAG_ENGINE, block)])
    paths = {found.path for found in verdict("N05", ProdWith("rag-engine", links=links)).findings}
    assert "rag-engine → no proxy → the internet:443" in paths
    assert "rag-engine → no proxy → backup-store:443" in paths


@pytest.mark.parametrize(
    ("update", "port"),
    [({"api_server": ApiServer(cidr="0.0.0.0/0")}, 6443), ({"nodes": "0.0.0.0/0"}, 10250)],
    ids=["port of the API server", "port of the kubelets"],
)
def test_n05_finds_a_port_on_which_pods_reach_the_internet(update: dict[str, object], port: int) -> None:
    real = platform("staging")
    settings = real.environment.settings.model_copy(update=update)
    paths = {found.path for found in verdict("N05", Platform(real.tenant, environment(settings, TENANT))).findings}
    assert f"prometheus → no proxy → the internet:{port}" in paths
    assert f"prometheus → no proxy → the cloud's metadata service:{port}" in paths


def test_n05_finds_a_declared_store_that_a_policy_denies() -> None:
    closed = links_of_prod_without(peer("voice-data", "postgresql", STORE_LABEL), "backup-store")
    (found,) = verdict("N05", ProdWith("postgresql", links=closed)).findings
    assert (found.path, found.arithmetic.partition(",")[0]) == ("postgresql → no proxy → backup-store:443", "declared")


def test_n02_finds_a_proxy_that_may_reach_the_clusters_own_network() -> None:
    block = AddressBlock(name="anywhere", cidr="0.0.0.0/0", ports=(443,))
    paths = {found.path for found in verdict("N02", ProdWith("egress-proxy-b", outward=(block,))).findings}
    assert "egress-proxy-b → the cloud's metadata service:443" in paths
    assert "egress-proxy-b → stranger in the cluster's network:443" in paths


class Rewritten(EgressProxy):
    names: tuple[str, ...] | None

    def resources(self) -> Iterator[Any]:
        for resource in super().resources():
            if resource["kind"] == "ConfigMap" and LISTENERS in resource["data"]:
                read: dict[str, Any] = json.loads(resource["data"][LISTENERS])
                for listener in read["resources"]:
                    for chain in listener["filter_chains"]:
                        chain["filter_chain_match"] = {"server_names": list(self.names or ())}
                        if self.names is None:
                            del chain["filter_chain_match"]
                resource["data"][LISTENERS] = json.dumps(read)
            yield resource


@pytest.mark.parametrize(
    ("names", "hosts"),
    [
        (None, {"any host as speech.googleapis.com", "any host as api.mistral.ai"}),
        ((), {"any host as speech.googleapis.com", "any host as api.mistral.ai"}),
        (("example.com",), {"example.com as speech.googleapis.com", "example.com as api.mistral.ai"}),
    ],
    ids=["no match", "no names", "another name"],
)
def test_n05_finds_a_filter_chain_that_admits_other_names(names: tuple[str, ...] | None, hosts: set[str]) -> None:
    real = platform("prod")
    changed = Platform(real.tenant, real.environment)
    proxy = Rewritten(**{name: getattr(proxy_b(), name) for name in EgressProxy.model_fields}, names=names)
    changed.__dict__["components"] = tuple(
        proxy if component.name == proxy.name else component for component in real.components
    )
    found = verdict("N05", changed).findings
    opened = {each.path.split(" → ")[2].removesuffix(":443") for each in found if each.arithmetic.startswith("open")}
    assert opened == hosts
    assert {(each.arithmetic, each.field) for each in found} == {
        ("open, but not declared", "allow_lists"),
        ("declared, but a NetworkPolicy or the allow-list denies it", "allow_lists"),
    }


def test_n05_finds_declared_hosts_if_neither_caller_nor_proxy_is_deployed() -> None:
    caller = service("a", operation("run", stage(hard("llm.generate", "never")), p95="9s", deadline="60s"))
    found = verdict("N05", of_manifests(nodes=(caller, models()))).findings
    assert [each.path for each in found] == [
        "a → egress-proxy-a → api.one.example:443",
        "a → egress-proxy-b → api.two.example:443",
    ]
