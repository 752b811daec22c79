from __future__ import annotations

from dataclasses import replace

import pytest

from components.node import Dependency, Host
from stack.audit import audit_outcome
from stack.model.platform import Platform
from stack.voiceassistant import TENANT
from stack.voiceassistant.stores import store
from tests.platforms import DAY, ENVIRONMENTS, platform, real_environment

DEPLOYED = ("postgresql", "redis", "events", "elasticsearch")


def changed(name: str, environment: str, **update: object) -> Platform:
    nodes = tuple(node.model_copy(update=update) if node.name == name else node for node in TENANT.catalogue.nodes)
    tenant = replace(TENANT, catalogue=TENANT.catalogue.model_copy(update={"nodes": nodes}))
    return Platform(tenant, real_environment(environment))


def rendered(looked_at: Platform) -> list[object]:
    return [resource for component in looked_at.components for resource in component.resources()]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("name", DEPLOYED)
def test_a_changed_purpose_does_not_change_a_store(name: str, environment: str) -> None:
    other = changed(name, environment, purpose="the same store in other words")
    assert rendered(other) == rendered(platform(environment))
    assert list(other.links) == list(platform(environment).links)


def test_a_changed_declaration_changes_the_deployed_store() -> None:
    moved = changed("redis", "dev", credentials=("password", "token"))
    assert audit_outcome(moved, on=DAY).open == ()
    (cache,) = (component for component in moved.components if component.name == "redis")
    assert {secret.keys for secret in cache.secrets} == {("password", "token")}


def test_a_store_outside_the_cluster_is_not_deployed() -> None:
    outside = Host(host="redis.voicehelper.internal", port=6379, egress="egress-proxy-a")
    graph = changed("redis", "prod", addresses=(outside,)).graph
    assert isinstance(graph.nodes["redis"], Dependency)
    assert store(graph, "redis") is None


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_store_uses_tls_or_has_a_dated_exemption(environment: str) -> None:
    plain = {
        component.name: exemption.reason
        for component in platform(environment).components
        for exemption in component.exemptions
        if exemption.rule == "tls"
    }
    stores = {*DEPLOYED, "consul"}
    # The operator gives PostgreSQL its certificates, and `pg_hba` admits only TLS.
    assert stores - plain.keys() == (set() if environment == "dev" else {"postgresql"})
    assert plain.keys() <= stores
    assert all("decided 20" in reason and "due 20" in reason for reason in plain.values())
