from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from voice_policies import Conflict, Duration, Fault, InvalidInputError, Retry

from components.component import Component
from components.links import Links
from components.operation import hard, operation, stage
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.platform import Platform
from stack.model.tenant import Builder, Tenant, Tier
from tests import toy
from tests.small import datastore, service, small_platform

if TYPE_CHECKING:
    from components.component import Resource


class Odd(Component):
    kind = "Odd"
    folder = "99-odd"

    def conflicts(self) -> Iterator[str | Conflict]:
        yield Conflict("metrics", "too long")
        yield Conflict("size", "too large")
        yield "is odd"

    def resources(self) -> Iterator[Resource]:
        yield from ()


def odd(_graph: CallGraph, _environment: Environment, _links: Links) -> Iterator[Builder]:
    yield partial(Odd, name="one", namespace="shop")
    yield partial(Odd, name="two", namespace="shop")
    raise InvalidInputError("tier.py:1", [Fault("tier", "is incomplete", "expected more")])


def refused(tenant: Tenant) -> list[str]:
    with pytest.raises(InvalidInputError) as caught:
        assert Platform(tenant, toy.ENVIRONMENT).components
    return str(caught.value).splitlines()


def test_equal_faults_of_two_components_are_reported_once_and_hide_no_other_fault() -> None:
    decided_by = {"Odd.metrics": "metrics.retention"}
    assert refused(replace(toy.TENANT, tiers=(Tier(odd), *toy.TENANT.tiers), decided_by=decided_by)) == [
        "Pulumi.dev.yaml and 2 other places: 4 faults",
        "  Pulumi.dev.yaml: config.voiceassistant:metrics.retention: is '1d'; Odd.metrics: too long",
        "  tests/toy.py: Odd.size: is refused; too large",
        "  tests/toy.py: Odd: is refused; is odd",
        "  tier.py:1: tier: is incomplete; expected more",
    ]


def test_every_call_whose_policy_cannot_be_enforced_is_named_with_its_line() -> None:
    retry = Retry(max_retries=1, base_delay=Duration("1ms"), max_delay=Duration("1ms"))
    read, write = operation("read", p95="1ms", deadline="9ms"), operation("write", p95="1ms", deadline="9ms")
    calls = (
        hard("store.read", "never", retry=retry),
        hard("store.write", "never", retry=retry),
    )
    caller = service("a", operation("run", stage(*calls), p95="1s", deadline="2s"))
    with pytest.raises(InvalidInputError) as caught:
        assert small_platform(datastore("store", read, write), caller).components
    reported = {(fault.source, fault.path.partition(":")[0]) for fault in caught.value.faults}
    assert reported >= {(str(call.location), f"a.run → {call.name}") for call in calls}
    assert calls[0].location != calls[1].location


def test_a_service_in_a_namespace_without_a_quota_is_refused() -> None:
    found = small_platform(service("a", operation("run", p95="1s", deadline="2s"), namespace="shp"))
    with pytest.raises(InvalidInputError) as caught:
        _ = found.components
    said = "Microservice a.namespace: is 'shp'; did you mean shop? expected one of shop, stores, for which profile dev"
    assert said in str(caught.value)


def test_two_components_that_render_the_same_resource_are_refused() -> None:
    run = operation("run", p95="1s", deadline="2s")
    found = small_platform(service("a", run), service("a-grpc", run))
    with pytest.raises(InvalidInputError) as caught:
        _ = found.resources
    assert "Service shop/a-grpc: is rendered by a and by a-grpc; expected one: rename a component" in str(caught.value)
