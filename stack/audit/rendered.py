"""The rendered resources, as the rules read them: collected in one pass, since rendering costs most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stack.model.platform import Platform
from stack.model.pod_demand import Demand, demands

if TYPE_CHECKING:
    from components.component import Resource


@dataclass(frozen=True, slots=True)
class Rendered:
    """Every resource of an environment, and the capacity that they request."""

    by_kind: Mapping[str, Sequence[Mapping[str, Any]]]
    demands: tuple[Demand, ...]

    def of_kind(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """The resources of one kind."""
        return self.by_kind.get(kind, ())

    @property
    def network_policies(self) -> Sequence[Resource]:
        """The permitted connections."""
        return self.of_kind("NetworkPolicy")  # type: ignore[return-value]  # its kind is its type


@lru_cache(maxsize=4)
def rendered(platform: Platform) -> Rendered:
    """The resources of one environment."""
    by_kind: dict[str, list[Resource]] = defaultdict(list)
    for component in platform.components:
        for resource in component.resources():
            by_kind[resource["kind"]].append(resource)
    everything = (resource for found in by_kind.values() for resource in found)
    return Rendered(by_kind, tuple(demands(everything, platform.environment.settings.node_pool.nodes)))
