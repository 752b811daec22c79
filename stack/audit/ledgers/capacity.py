"""CPU, memory and pods of the workloads at each scale, against quotas and nodes (rules D02, H03)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from voice_policies import Bytes, Cpu

from stack.audit.ledgers.table import Cell, Column, Ledger, Table
from stack.audit.rendered import rendered
from stack.model.platform import Platform
from stack.model.pod_demand import Amounts, Demand

NODE_POOL = "node pool"
"""The `place` of a `Room` that counts the workloads of all namespaces."""


class Usage(NamedTuple):
    """A number of pods, and the sum of their requests and limits."""

    amounts: Amounts
    pods: float


AMOUNTS: dict[str, Callable[[Usage], float]] = {
    "cpu_requests": lambda usage: usage.amounts.cpu_requests.units,
    "memory_requests": lambda usage: usage.amounts.memory_requests.units,
    "cpu_limits": lambda usage: usage.amounts.cpu_limits.units,
    "memory_limits": lambda usage: usage.amounts.memory_limits.units,
    "pods": lambda usage: usage.pods,
}
"""Name of an amount in a ResourceQuota → a function that returns it in base units: millicores, bytes or pods."""
SCALES: tuple[Callable[[Demand], float], ...] = (
    lambda demand: demand.scale.minimum,
    lambda demand: demand.scale.expected,
    lambda demand: demand.scale.maximum,
    lambda demand: demand.pods,
    lambda demand: demand.pods + demand.stopping,
)
"""A function for each field of `Asked`, in the same order. It returns the number of a workload's pods at that scale."""


class Asked(NamedTuple):
    """The demand for one amount at each scale, in base units."""

    minimum: float
    expected: float
    maximum: float
    with_surge: float
    """The demand at the maximum, plus the pods that a rollout adds."""
    with_stopping: float
    """The demand with surge, plus the replaced pods that are still in their grace period."""


@dataclass(frozen=True, slots=True)
class Room:
    """One amount in a namespace or in the node pool: the demand, and the limit in base units."""

    place: str
    amount: str
    asked: Asked
    limit: int
    pods_stop: bool
    """True if a rollout replaces pods. A replaced pod counts against the quota until its grace period ends."""

    def fits(self, asked: float) -> bool:
        """True if a demand is within the limit."""
        return round(asked) <= self.limit

    def measure(self, units: float) -> Cpu | Bytes | int:
        """A number of base units as a quantity."""
        if self.amount == "pods":
            return round(units)
        return (Cpu if self.amount.startswith("cpu") else Bytes).of_units(round(units))

    def in_unit(self, units: float) -> float:
        """A number of base units in cores, GiB or pods."""
        measured = self.measure(units)
        if isinstance(measured, Cpu):
            return measured.cores
        return measured.gibibytes if isinstance(measured, Bytes) else units


@lru_cache(maxsize=4)
def rooms(platform: Platform) -> tuple[Room, ...]:
    """Each amount of each namespace with its quota, then CPU and memory of the node pool."""
    return tuple(_all_rooms(platform))


def _all_rooms(platform: Platform) -> Iterator[Room]:
    demands, pool = rendered(platform).demands, platform.environment.settings.node_pool
    by_namespace: dict[str, list[Demand]] = defaultdict(list)
    for demand in demands:
        by_namespace[demand.namespace].append(demand)
    for namespace, inside in by_namespace.items():
        quota = platform.environment.profile.quotas[namespace]
        amounts = Amounts(quota.cpu_requests, quota.cpu_limits, quota.memory_requests, quota.memory_limits)
        yield from _rooms(namespace, inside, Usage(amounts, quota.pods), tuple(AMOUNTS))
    whole = Amounts(cpu_requests=pool.cpu * pool.nodes, memory_requests=pool.memory * pool.nodes)
    yield from _rooms(NODE_POOL, demands, Usage(whole, 0), ("cpu_requests", "memory_requests"))


def _rooms(place: str, demands: Iterable[Demand], limit: Usage, amounts: tuple[str, ...]) -> Iterator[Room]:
    inside = tuple(demands)
    usages = [_usage(inside, pods) for pods in SCALES]
    pods_stop = any(demand.stopping for demand in inside)
    for amount in amounts:
        units = AMOUNTS[amount]
        yield Room(place, amount, Asked(*map(units, usages)), int(units(limit)), pods_stop)


def _usage(demands: Iterable[Demand], pods: Callable[[Demand], float]) -> Usage:
    counts = [(demand, pods(demand)) for demand in demands]
    amounts = sum((demand.each.times(count) for demand, count in counts), Amounts())
    return Usage(amounts, sum(count for _, count in counts))


def capacity_ledger(platform: Platform) -> Ledger:
    """A table of the workloads, then a table that compares their sums with quotas and nodes."""
    return Ledger("capacity", (_workloads(platform), _limits(platform)))


WORKLOAD_COLUMNS = (
    Column("workload"),
    Column("pods"),
    Column("CPU of a pod", ",.2f"),
    Column("memory of a pod, GiB", ",.2f"),
    *(Column(f"{scale} {amount}", ",.2f") for amount in ("CPU", "GiB") for scale in ("minimum", "expected", "maximum")),
)


def _workloads(platform: Platform) -> Table:
    found = sorted(rendered(platform).demands, key=lambda demand: (demand.namespace, demand.name))
    rows = [_workload_row(demand) for demand in found]
    sums = (sum(float(row[column] or 0) for row in rows) for column in range(4, 10))
    return Table("requests of the workloads", WORKLOAD_COLUMNS, (*rows, ("total", "", None, None, *sums)))


def _workload_row(demand: Demand) -> tuple[Cell, ...]:
    scale, each = demand.scale, demand.each
    cpu, memory = each.cpu_requests.cores, each.memory_requests.gibibytes
    counts = (scale.minimum, scale.expected, scale.maximum)
    sums = (count * amount for amount in (cpu, memory) for count in counts)
    return f"{demand.namespace}/{demand.name}", f"{scale.minimum}..{scale.maximum}", cpu, memory, *sums


LIMIT_COLUMNS = (
    Column("place"),
    Column("amount"),
    *(Column(name, ",.2f") for name in ("minimum", "expected", "maximum", "with surge", "with stopping pods", "limit")),
    Column("highest use", ".0%"),
)
UNITS = {"cpu": "cores", "memory": "GiB"}


def _limits(platform: Platform) -> Table:
    notes = (
        "With surge: at maximum scale, each Deployment has one more pod during a rollout, and each CloudNativePG"
        " cluster has one more pod while an instance joins. With stopping pods: also the pods in their grace period."
        " The limit of a namespace is its ResourceQuota, and its highest use includes stopping pods. The limit of the"
        " node pool is its allocatable capacity, and its highest use includes the surge, but no stopping pods."
    )
    rows = tuple(map(_limit_row, rooms(platform)))
    return Table("demand at each scale, with quotas and nodes", LIMIT_COLUMNS, rows, (notes,))


def _limit_row(room: Room) -> tuple[Cell, ...]:
    unit = UNITS.get(room.amount.partition("_")[0])
    most = room.asked.with_surge if room.place == NODE_POOL else room.asked.with_stopping
    name = room.amount.replace("_", " ")
    return (
        room.place,
        f"{name}, {unit}" if unit else name,
        *map(room.in_unit, (*room.asked, room.limit)),
        most / room.limit,
    )
