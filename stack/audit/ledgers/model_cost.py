"""The monthly cost of model calls at the mean load, by route (rule M12)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stack.audit.ledgers.table import Column, Table
from stack.model.call_graph import OperationKey
from stack.model.model_load import ModelDemand, model_demands
from stack.model.platform import Platform

HOURS = 730
"""Hours of a mean month: 8,760 ÷ 12."""


@dataclass(slots=True)
class RouteCost:
    """The calls of one route in a month, their input units, their output tokens, and their cost in USD."""

    calls: float = 0
    units: float = 0
    output: float = 0
    usd: float = 0


def model_costs(platform: Platform, entering: Mapping[OperationKey, float] | None = None) -> dict[str, RouteCost]:
    """Route → its cost. `entering` maps entrances to their arrivals per second. The default is all declared load."""
    share = platform.environment.profile.load_share * float(platform.site.mean_load) * HOURS * 3600
    found: dict[str, RouteCost] = defaultdict(RouteCost)
    for demand in model_demands(platform.graph, entering):
        calls, cost = demand.rate * share, found[demand.name]
        requests = calls * demand.requests_per_call
        cost.calls += calls
        cost.units += requests * demand.use.input_mean
        cost.output += requests * demand.use.output_mean
        cost.usd += requests * demand.micro_usd / 1e6
    return found


def model_total(platform: Platform, entering: Mapping[OperationKey, float] | None = None) -> float:
    """USD a month of all model calls."""
    return sum(cost.usd for cost in model_costs(platform, entering).values())


COLUMNS = (
    Column("route"),
    Column("million calls a month", ",.3f"),
    Column("million units in", ",.1f"),
    Column("million tokens out", ",.1f"),
    Column("USD a month", ",.2f"),
)


def model_table(platform: Platform) -> Table:
    """The cost by route. Empty if the platform calls no model."""
    found = model_costs(platform)
    if found:
        found["total"] = _total(found.values())
    rows = tuple(
        (name, each.calls / 1e6, each.units / 1e6, each.output / 1e6, each.usd) for name, each in found.items()
    )
    note = (
        "A unit is a token, a character or a second of audio, as the price says. Each call and each hedged request"
        " has the mean input and output, at the price of the preferred candidate. Retries and fallbacks are not"
        " counted."
    )
    return Table("model calls, at the mean load", COLUMNS, rows, (note, *_prices(platform)))


def _total(costs: Iterable[RouteCost]) -> RouteCost:
    each = list(costs)
    return RouteCost(*(sum(getattr(cost, name) for cost in each) for name in ("calls", "units", "output", "usd")))


def _prices(platform: Platform) -> Iterator[str]:
    """A sentence for each route: its price and the source."""
    by_route = {demand.name: demand for demand in model_demands(platform.graph)}
    for name, demand in by_route.items():
        yield _price(name, demand)


def _price(name: str, demand: ModelDemand) -> str:
    candidate = demand.candidates[0]
    price = candidate.model.price
    if price is None:
        return f"{name}: {candidate.name} has no price."
    out = f", {price.output:g} USD per million tokens out" if price.output else ""
    return (
        f"{name}: {price.input:g} USD per million {price.unit.replace('_', ' ')}s in{out} "
        f"({candidate.name}; {price.source}, {price.as_of})."
    )
