from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from voice_policies import Bytes, Conflict, Duration

from components.retention import Stream, disk_conflict, shared_disk_conflicts
from components.writes import FILL_LIMIT

GIBIBYTE = 1 << 30
SIZES = st.integers(min_value=1, max_value=1 << 45).map(Bytes.of_units)


def stream(name: str, daily: str, retention: str, copies: int = 1) -> Stream:
    return Stream(name=name, daily=Bytes(daily), retention=Duration(retention), copies=copies)


def test_the_size_of_kept_data_includes_the_current_day_and_every_copy() -> None:
    assert stream("logs", "10Gi", "7d", 2).kept == Bytes("160Gi")
    assert stream("logs", "24Gi", "12h").kept == Bytes("36Gi")


def test_each_stream_that_does_not_fit_is_named_with_the_needed_size() -> None:
    streams = [stream("logs", "10Gi", "7d", 2), stream("traces", "50Gi", "3d"), stream("small", "1Gi", "1d")]
    assert list(map(str, shared_disk_conflicts("streams", streams, Bytes("100Gi")))) == [
        (
            "streams.logs: 7d and the current day, at 10.0 GiB a day × 2 copies, need 160.0 GiB, "
            "and 85% of the disk (100.0 GiB) is 85.0 GiB; "
            "expected a disk of at least 189Gi, or a retention of at most 3d"
        ),
        (
            "streams.traces: 3d and the current day, at 50.0 GiB a day, need 200.0 GiB, "
            "and 85% of the disk (100.0 GiB) is 85.0 GiB; "
            "expected a disk of at least 236Gi"
        ),
    ]


def test_streams_that_fit_alone_but_not_together_are_refused() -> None:
    streams = [stream("logs", "10Gi", "5d"), stream("traces", "10Gi", "4d")]
    assert list(map(str, shared_disk_conflicts("streams", streams, Bytes("100Gi")))) == [
        (
            "streams: logs 60.0 GiB + traces 50.0 GiB = 110.0 GiB, and 85% of the disk (100.0 GiB) is 85.0 GiB; "
            "expected a disk of at least 130Gi"
        )
    ]


@given(SIZES, st.integers(1, 60), SIZES)
def test_only_a_retention_beyond_the_fill_limit_is_refused(daily: Bytes, days: int, disk: Bytes) -> None:
    one = Stream(name="logs", daily=daily, retention=Duration(f"{days}d"))
    refused = list(disk_conflict("retention", one, disk))
    assert bool(refused) == (daily.units * (days + 1) > round(disk.units * FILL_LIMIT))


@given(SIZES, st.integers(1, 60), SIZES)
def test_each_proposed_disk_and_retention_is_accepted(daily: Bytes, days: int, disk: Bytes) -> None:
    one = Stream(name="logs", daily=daily, retention=Duration(f"{days}d"))
    for conflict in disk_conflict("retention", one, disk):
        assert not list(disk_conflict("retention", one, Bytes(named("a disk of at least ", conflict))))
        if retention := named("a retention of at most ", conflict):
            assert not list(disk_conflict("retention", one.model_copy(update={"retention": Duration(retention)}), disk))


def named(words: str, conflict: Conflict) -> str:
    return str(conflict).partition(words)[2].partition(",")[0]
