"""The toy tenant as the engine's tests deploy it: a store that keeps a volume, and a profile that protects it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from voice_policies import Bytes

from components.links import Links
from components.valkey.server import Valkey
from stack.model import microservices
from stack.model.call_graph import CallGraph
from stack.model.environments import Environment
from stack.model.tenant import Tier
from tests import toy

STORAGE = Bytes("1Gi")
NODES = (toy.ORDERS, toy.PRICES, toy.STOCK)


def stores(graph: CallGraph, environment: Environment, links: Links) -> Iterator[Valkey]:
    """The store, with a volume."""
    return (store.model_copy(update={"storage": STORAGE}) for store in toy.stores(graph, environment, links))


TENANT = replace(
    toy.TENANT,
    catalogue=toy.TENANT.catalogue.model_copy(update={"nodes": NODES}),
    tiers=(Tier(microservices.components), Tier(stores)),
    profiles={
        "dev": toy.PROFILE,
        "prod": toy.PROFILE.model_copy(update={"name": "prod", "protects_data": True}),
    },
)
