"""The monthly cost of resource requests and volumes, by service, team and flow (rule D04).

One more table has the cost of protection: spare pods, retries and stored telemetry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import add
from typing import NamedTuple

from stack.audit.ledgers.model_cost import HOURS, model_table, model_total
from stack.audit.ledgers.table import Column, Ledger, Table
from stack.audit.rendered import rendered
from stack.audit.retries import service_loads
from stack.model.call_graph import CallGraph, OperationKey
from stack.model.load import by_node, entrances, executions
from stack.model.platform import Platform
from stack.model.pod_demand import EXPECTED, Amounts, Demand
from stack.model.prices import Prices
from stack.model.profile import N_PLUS_ONE
from stack.model.volume_claims import claimed_storage


class Cost(NamedTuple):
    """USD a month at each scale."""

    minimum: float = 0
    expected: float = 0
    maximum: float = 0

    def plus(self, other: Cost) -> Cost:
        """The sum at each scale."""
        return Cost(*map(add, self, other))


def total(parts: Iterable[Cost]) -> Cost:
    """The sum of several costs."""
    found = Cost()
    for part in parts:
        found = found.plus(part)
    return found


@dataclass(frozen=True, slots=True)
class FlowCost:
    """The cost that one entrance causes: its share of the services' cost, and its model calls."""

    entrance: str
    """The names of the flows that begin at the entrance. The name of the operation if no flow begins there."""
    requests: float
    """Requests a month at the mean load."""
    compute: float
    """USD a month at the expected scale."""
    models: float
    """USD a month of the flow's model calls."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost of an environment."""

    prices: Prices
    services: dict[str, Cost]
    """Service → its cost."""
    servers: dict[str, Cost]
    """`namespace/name` of another workload → its cost."""
    volumes: dict[str, float]
    """Namespace → USD a month of its volumes."""
    flows: tuple[FlowCost, ...]
    protection: dict[str, float]
    """Purpose → USD a month."""

    @property
    def application(self) -> Cost:
        """The cost of all services."""
        return total(self.services.values())

    @property
    def infrastructure(self) -> Cost:
        """The cost of the other workloads and of all volumes."""
        volumes = sum(self.volumes.values())
        return total(self.servers.values()).plus(Cost(volumes, volumes, volumes))


@lru_cache(maxsize=4)
def costs(platform: Platform) -> Costs | None:
    """The cost of an environment. `None` if the tenant has no price table."""
    prices = platform.prices
    if prices is None:
        return None
    names = {(service.namespace, service.name) for service in platform.graph.services}
    services, servers = {}, {}
    for demand in rendered(platform).demands:
        if (demand.namespace, demand.name) in names:
            services[demand.name] = _cost(prices, demand)
        else:
            servers[f"{demand.namespace}/{demand.name}"] = _cost(prices, demand)
    return Costs(
        prices,
        services,
        servers,
        _volumes(platform, prices),
        tuple(_flows(platform, services)),
        {**_spare_pods(platform, prices), **_retries(platform, prices), **_streams(platform, prices)},
    )


def _pod(prices: Prices, each: Amounts) -> float:
    hourly = each.cpu_requests.cores * prices.cpu_hour + each.memory_requests.gibibytes * prices.memory_hour
    return hourly * HOURS


def _cost(prices: Prices, demand: Demand) -> Cost:
    each, scale = _pod(prices, demand.each), demand.scale
    return Cost(scale.minimum * each, scale.expected * each, scale.maximum * each)


def _volumes(platform: Platform, prices: Prices) -> dict[str, float]:
    found: dict[str, float] = {}
    for (namespace, _), size in claimed_storage(rendered(platform).everything).items():
        found[namespace] = found.get(namespace, 0) + size.gibibytes * prices.storage_month
    return found


def _flows(platform: Platform, services: dict[str, Cost]) -> Iterator[FlowCost]:
    """The cost of each entrance: a share of every service's cost, equal to the entrance's share of the executions.

    The cost of the services without load comes last, if there are any.
    """
    graph = platform.graph
    everything = by_node(executions(graph))
    share = platform.environment.profile.load_share * float(platform.site.mean_load) * HOURS * 3600
    for key, rate in entrances(graph).items():
        own = by_node(executions(graph, arrivals={key: rate}))
        compute = sum(
            cost.expected * own[name] / everything[name] for name, cost in services.items() if everything[name]
        )
        yield FlowCost(_entrance_name(graph, key), rate * share, compute, model_total(platform, {key: rate}))
    idle = sum(cost.expected for name, cost in services.items() if not everything[name])
    if idle:
        yield FlowCost("services without load", 0, idle, 0)


def _entrance_name(graph: CallGraph, key: OperationKey) -> str:
    return ", ".join(flow.name for flow in graph.flows_at(key)) or ".".join(key)


def _spare_pods(platform: Platform, prices: Prices) -> dict[str, float]:
    """The cost of one spare pod of each workload that always runs at least two pods."""
    spare = [demand for demand in rendered(platform).demands if demand.scale.minimum >= N_PLUS_ONE]
    return {
        f"N+1: one spare pod for each of {len(spare)} workloads": sum(_pod(prices, demand.each) for demand in spare)
    }


def _retries(platform: Platform, prices: Prices) -> dict[str, float]:
    """The cost of the pods that serve retries while callees fail."""
    services = {(service.namespace, service.name): service for service in platform.graph.services}
    loads, extra = service_loads(platform), 0.0
    for demand in rendered(platform).demands:
        if service := services.get((demand.namespace, demand.name)):
            load = loads[service.name]
            pods = (load.with_retries - load.offered) / service.capacity.per_second
            extra += pods * _pod(prices, demand.each)
    return {"retries: pods that serve sustained retries while callees fail": extra}


def _streams(platform: Platform, prices: Prices) -> dict[str, float]:
    """The cost of stored telemetry: daily volume × (retention + 1 day) × copies."""
    found = {}
    for component in platform.components:
        for stream in component.streams_kept():
            sampled = f", {stream.sampled} sampled" if stream.sampled else ""
            purpose = f"telemetry: {stream.name} in {component.name}, {stream.retention} kept{sampled}"
            found[purpose] = stream.kept.gibibytes * prices.storage_month
    return found


MONEY = ",.2f"
SCALES = (Column("minimum", MONEY), Column("expected", MONEY), Column("maximum", MONEY))
"""USD a month at each scale."""


def cost_ledger(platform: Platform) -> Ledger:
    """Tables of services, teams, infrastructure, flows, model calls and protection. Empty without a price table."""
    found = costs(platform)
    if found is None:
        return Ledger("cost", ())
    tables = (_services(found), _teams(platform, found), _infrastructure(found), _of_flows(found))
    models = [table] if (table := model_table(platform)).rows else []
    return Ledger("cost", (*tables, *models, _protection(found)))


def price_text(prices: Prices) -> str:
    """The price table as one sentence."""
    return (
        f"Prices: {prices.cpu_hour:g} USD per core and hour, {prices.memory_hour:g} USD per GiB of memory and hour, "
        f"{prices.storage_month:g} USD per GiB of volume and month ({prices.source}, read on {prices.read_on})."
    )


def _services(found: Costs) -> Table:
    rows = [(name, *cost) for name, cost in found.services.items()]
    scale = f"The expected scale is minimum + {EXPECTED:.0%} × (maximum − minimum). A month has {HOURS} hours."
    columns = (Column("service"), *SCALES)
    rows.append(("total", *found.application))
    return Table("services, USD a month", columns, tuple(rows), (price_text(found.prices), scale))


def _teams(platform: Platform, found: Costs) -> Table:
    alerting = platform.tenant.alerting
    teams = {
        team: total(found.services[service.name] for service in services if service.name in found.services)
        for team, services in alerting.teams.items()
    }
    owned = {service.name for services in alerting.teams.values() for service in services}
    others = total(cost for name, cost in found.services.items() if name not in owned)
    platform_team = others.plus(found.infrastructure)
    rows = {**teams, alerting.platform_team: platform_team, "total": found.application.plus(found.infrastructure)}
    note = f"Team {alerting.platform_team} owns the infrastructure, and every service that has no other team."
    return Table("teams, USD a month", (Column("team"), *SCALES), _rows(rows), (note,))


def _infrastructure(found: Costs) -> Table:
    volumes = {f"volumes in {name}": Cost(cost, cost, cost) for name, cost in sorted(found.volumes.items())}
    rows = {**dict(sorted(found.servers.items())), **volumes, "total": found.infrastructure}
    return Table("infrastructure, USD a month", (Column("workload"), *SCALES), _rows(rows))


def _rows(found: dict[str, Cost]) -> tuple[tuple[str, float, float, float], ...]:
    return tuple((name, *cost) for name, cost in found.items())


FLOW_COLUMNS = (
    Column("flow or route"),
    Column("million requests a month", ",.3f"),
    Column("USD a month", MONEY),
    Column("model calls, USD a month", MONEY),
    Column("USD per million requests", MONEY),
)


def _of_flows(found: Costs) -> Table:
    rows = [_flow_row(flow) for flow in found.flows]
    whole = sum(flow.compute for flow in found.flows)
    requests, models = (sum(getattr(flow, field) for flow in found.flows) for field in ("requests", "models"))
    rows.append(_flow_row(FlowCost("total", requests, whole, models)))
    note = (
        "The cost of a service is divided among the flows in proportion to the executions that each flow causes. The "
        "cost of model calls is added. The mean load of a month is a fixed share of the declared peak load."
    )
    return Table("flows, at the expected scale", FLOW_COLUMNS, tuple(rows), (note,))


def _flow_row(flow: FlowCost) -> tuple[str, float, float, float, float | None]:
    millions, whole = flow.requests / 1e6, flow.compute + flow.models
    return flow.entrance, millions, flow.compute, flow.models, whole / millions if millions else None


def _protection(found: Costs) -> Table:
    columns = (Column("protection"), Column("USD a month", MONEY))
    parts = (
        "The tables above do not include the pods for retries: the autoscaler adds them only if callees fail at the "
        "declared load. Nor do the tables above include traces in an object store outside the cluster. The tables "
        "above include the other costs of this table."
    )
    telemetry = "The cost of telemetry is the data of a day × (days of retention + 1) × copies × the price of a volume."
    return Table("cost of protection", columns, tuple(found.protection.items()), (parts, telemetry))
