"""Links, the permitted connections of pods. Each server's network policy is rendered from its links."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field, InstanceOf

from components.network_policy import NAME_LABEL, NetworkEnd, Peer, network_policy
from components.scrape import Scrape

if TYPE_CHECKING:
    from components.kubernetes.types import NetworkPolicy, ObjectMeta

__all__ = ["Link", "Links", "peer"]


@dataclass(frozen=True, slots=True)
class Link:
    """A permitted connection. If an end is a `Peer`, the network policy of its pods permits the connection."""

    source: NetworkEnd
    """The end that connects. It has no ports."""
    target: NetworkEnd
    """The end that listens, and its ports."""
    scrape: Scrape | None = None
    """The scrape or the probe that uses the link, if any."""


class Links:
    """Every link of a platform, found by namespace and name of the pods at either end."""

    def __init__(self, links: Iterable[Link]) -> None:
        """Group `links` by their ends. The links of one end keep their order."""
        self._all = tuple(links)
        self._ingress: dict[tuple[str, str], list[NetworkEnd]] = defaultdict(list)
        self._egress: dict[tuple[str, str], list[NetworkEnd]] = defaultdict(list)
        for link in self._all:
            if isinstance(link.target, Peer):
                self._ingress[link.target.namespace, link.target.name].append(_source(link.source, link.target))
            if isinstance(link.source, Peer):
                self._egress[link.source.namespace, link.source.name].append(link.target)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._all)

    def ingress(self, namespace: str, name: str) -> tuple[NetworkEnd, ...]:
        """The sources that connect to these pods. The ports of a source are the ports of these pods that it may use."""
        return tuple(self._ingress.get((namespace, name), ()))

    def egress(self, namespace: str, name: str) -> tuple[NetworkEnd, ...]:
        """The targets that these pods connect to."""
        return tuple(self._egress.get((namespace, name), ()))

    def network_policy(
        self, metadata: ObjectMeta, selector: dict[str, str], outward: Iterable[NetworkEnd] = ()
    ) -> NetworkPolicy:
        """A NetworkPolicy for the pods that `selector` selects: it permits their links and the addresses `outward`."""
        (name,) = selector.values()
        namespace = metadata["namespace"]
        return network_policy(
            metadata, selector, self.ingress(namespace, name), [*self.egress(namespace, name), *outward]
        )


PlatformLinks: TypeAlias = Annotated[InstanceOf[Links], Field(repr=False)]
"""Every link of the platform, as a field of a component."""


def _source(source: NetworkEnd, target: Peer) -> NetworkEnd:
    if not isinstance(source, Peer):
        return source.model_copy(update={"ports": target.ports})
    return peer(source.namespace, source.name, source.label, target.ports, target.udp_ports)


@cache
def peer(
    namespace: str, name: str, label: str = NAME_LABEL, ports: tuple[int, ...] = (), udp_ports: tuple[int, ...] = ()
) -> Peer:
    """Pods and some of their ports. Cached: every service links to the same few peers, such as the Collector."""
    return Peer(namespace=namespace, name=name, label=label, ports=ports, udp_ports=udp_ports)
