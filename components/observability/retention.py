"""Data that a store keeps for a time, compared with its disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from voice_policies import Bytes, ClosedModel, Duration, PositiveDuration

from components.operation import Name

__all__ = ["DAY", "Stream"]

DAY = Duration("1d")
FILL_LIMIT = 0.85
"""Share of a disk that data may take: above it Elasticsearch allocates no shard to a node
(`cluster.routing.allocation.disk.watermark.low`, 85 % by default), and any other store has no room to compact."""


class Stream(ClosedModel):
    """Data of one kind that keeps arriving."""

    name: Name
    daily: Bytes
    """Size on disk of one copy of a day's data."""
    retention: PositiveDuration
    copies: int = 1

    @property
    def kept(self) -> Bytes:
        """Size on disk just before the oldest data goes: the current day comes on top of the retention."""
        return self.daily * ((self.retention + DAY) / DAY * self.copies)


def disk_conflicts(streams: Iterable[Stream], disk: Bytes) -> Iterator[str]:
    """A sentence for each stream whose retention is longer than the disk allows, and one where only the sum is."""
    declared = tuple(streams)
    room = disk * FILL_LIMIT
    alone = [stream for stream in declared if stream.kept > room]
    for stream in alone:
        yield f"{stream.name}: {_need(stream)}, and {_room(disk, room)}"
    total = Bytes.of_units(sum(stream.kept.units for stream in declared))
    if not alone and total > room:
        needs = " + ".join(f"{stream.name} {_gibibytes(stream.kept)}" for stream in declared)
        yield f"retention: {needs} = {_gibibytes(total)}, and {_room(disk, room)}"


def _need(stream: Stream) -> str:
    copies = f" × {stream.copies} copies" if stream.copies > 1 else ""
    return f"{stream.retention} of {_gibibytes(stream.daily)} a day{copies} need {_gibibytes(stream.kept)}"


def _room(disk: Bytes, room: Bytes) -> str:
    return f"{FILL_LIMIT:.0%} of the disk ({_gibibytes(disk)}) is {_gibibytes(room)}"


def _gibibytes(size: Bytes) -> str:
    return f"{size.gibibytes:.1f} GiB"
