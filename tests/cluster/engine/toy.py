"""The toy tenant of the engine's tests. Its store has a volume, and its profile `prod` protects data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from voice_policies import Bytes

from components.component import Component
from components.links import Links
from stack.model import microservices
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.tenant import Tier
from tests import toy

STORAGE = Bytes("1Gi")
NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)


def stores(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Callable[[], Component]]:
    return (partial(_with_volume, make) for make in toy.stores(graph, environment, links))


def _with_volume(make: Callable[[], Component]) -> Component:
    return make().model_copy(update={"storage": STORAGE})


TENANT = replace(
    toy.TENANT,
    catalogue=toy.TENANT.catalogue.model_copy(update={"nodes": NODES}),
    tiers=(Tier(microservices.components), Tier(stores)),
    profiles={
        "dev": toy.PROFILE,
        "prod": toy.PROFILE.model_copy(update={"name": "prod", "protects_data": True}),
    },
)
