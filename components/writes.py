"""A server's writes to its volumes, and the work that it does while it starts.

The audit compares the writes with the sizes of the volumes, and the work with the time of the startup probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from voice_policies import Bytes, Duration

__all__ = ["FILL_LIMIT", "Disk"]

FILL_LIMIT = 0.85
"""Largest share of a persistent volume for data. Above it Elasticsearch allocates no replica and moves no shard to
a node (`cluster.routing.allocation.disk.watermark.low`, 85 % by default). Other stores then have no room to compact."""


def fitting_disk(data: Bytes) -> Bytes:
    """The smallest persistent volume in whole GiB that has room for `data`."""
    return Bytes("1Gi") * ceil(data.gibibytes / FILL_LIMIT)


@dataclass(frozen=True, slots=True)
class Write:
    """Data that a program writes to a volume for one purpose."""

    volume: str
    """The volume's name in the pod."""
    size: Bytes
    """Largest size of the data, with temporary files."""
    reason: str
    """Arithmetic of the size, or the assumption behind the size."""


@dataclass(frozen=True, slots=True)
class StartWork:
    """Work that a program does before its startup probe succeeds, and that grows with its data."""

    size: Bytes
    rate: Bytes
    """Assumed progress in a second."""
    reason: str

    @property
    def duration(self) -> Duration:
        """The time that the work takes."""
        return Duration.of_units(round(self.size / self.rate * 1_000_000))


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume that a program writes to, and the largest sizes of the program's data there."""

    path: str
    """`NAMESPACE/WORKLOAD volume NAME`."""
    size: Bytes
    persistent: bool
    """True if the volume outlives the pod. Data may fill such a volume up to `FILL_LIMIT`, and an `emptyDir` fully."""
    writes: Sequence[Write]

    @property
    def room(self) -> Bytes:
        """The part of the volume that data may fill."""
        return self.size * FILL_LIMIT if self.persistent else self.size

    @property
    def written(self) -> Bytes:
        """The sum of the writes."""
        return sum((write.size for write in self.writes), Bytes("0"))
