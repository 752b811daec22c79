"""The facts that the rules read from the rendered resources, collected in one pass, since rendering costs most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from stack.model.platform import Platform
from stack.model.pod_demand import Demand, demands

if TYPE_CHECKING:
    from components.component import Resource


@dataclass(frozen=True, slots=True)
class Rendered:
    """The permitted connections and the requested capacity."""

    network_policies: tuple[Resource, ...]
    demands: tuple[Demand, ...]


@lru_cache(maxsize=4)
def rendered(platform: Platform) -> Rendered:
    """Of one environment. Other resources are let go as they pass."""
    policies: list[Resource] = []

    def resources() -> Iterator[Resource]:
        for component in platform.components:
            for resource in component.resources():
                if resource["kind"] == "NetworkPolicy":
                    policies.append(resource)
                yield resource

    found = tuple(demands(resources(), platform.environment.settings.node_pool.nodes))
    return Rendered(tuple(policies), found)
