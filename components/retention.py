"""Data with a retention time, compared with the disk that stores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from voice_policies import Bytes, ClosedModel, Conflict, Duration, PositiveDuration, Ratio

from components.operation import Name
from components.writes import FILL_LIMIT, fitting_disk

__all__ = ["DAY", "Stream"]

DAY = Duration("1d")


class Stream(ClosedModel):
    """Data of one kind that arrives continuously."""

    name: Name
    daily: Bytes
    """Size on disk of one copy of one day's data."""
    retention: PositiveDuration
    copies: int = 1
    sampled: Ratio | None = None
    """Share of the data that is kept, if the data is sampled. `daily` is the size after sampling."""

    @property
    def kept(self) -> Bytes:
        """Largest size on disk, all copies included. A retention of 7 days keeps 8 days, with the current day."""
        return self.daily * ((self.retention + DAY) / DAY * self.copies)


def disk_conflict(field: str, stream: Stream, disk: Bytes) -> Iterator[Conflict]:
    """A conflict if the stream's retention is longer than the disk allows."""
    room = disk * FILL_LIMIT
    if stream.kept > room:
        days = room.units // (stream.daily.units * stream.copies) - 1
        longest = f", or a retention of at most {days}d" if days > 0 else ""
        expected = f"expected a disk of at least {fitting_disk(stream.kept)}{longest}"
        yield Conflict(field, f"{_need(stream)}, and {_room(disk, room)}; {expected}")


def shared_disk_conflicts(field: str, streams: Sequence[Stream], disk: Bytes) -> Iterator[Conflict]:
    """A conflict for each stream that is larger than `FILL_LIMIT` of the disk.

    If each stream fits, but their sum does not, there is one conflict.
    """
    alone = [conflict for stream in streams for conflict in disk_conflict(f"{field}.{stream.name}", stream, disk)]
    yield from alone
    total = Bytes.of_units(sum(stream.kept.units for stream in streams))
    if not alone and total > (room := disk * FILL_LIMIT):
        needs = " + ".join(f"{stream.name} {_gibibytes(stream.kept)}" for stream in streams)
        expected = f"expected a disk of at least {fitting_disk(total)}"
        yield Conflict(field, f"{needs} = {_gibibytes(total)}, and {_room(disk, room)}; {expected}")


def _need(stream: Stream) -> str:
    copies = f" × {stream.copies} copies" if stream.copies > 1 else ""
    return (
        f"{stream.retention} and the current day, at {_gibibytes(stream.daily)} a day{copies}, "
        f"need {_gibibytes(stream.kept)}"
    )


def _room(disk: Bytes, room: Bytes) -> str:
    return f"{FILL_LIMIT:.0%} of the disk ({_gibibytes(disk)}) is {_gibibytes(room)}"


def _gibibytes(size: Bytes) -> str:
    return f"{size.gibibytes:.1f} GiB"
