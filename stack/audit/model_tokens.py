"""M07, M08: the candidates' quotas cover the load. M12: models have a price and stay in service; the budget holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

from voice_policies import Model

from components.declaration import Location
from stack.audit.finding import Breach, Rule
from stack.audit.ledgers.model_cost import model_total
from stack.model.model_load import model_demands, model_edges
from stack.model.platform import Platform

FULL = 0.8
"""Share of a quota. A higher load leaves no room for a peak (rule M07)."""
NOTICE = timedelta(days=30)
"""Time to replace a model before its provider shuts it down (rule M12)."""


@dataclass(frozen=True, slots=True)
class Quota:
    """The load of a route in one unit, and its candidates' quotas in this unit."""

    route: str
    needed: float
    """The load of this route and of all routes that share a candidate with this route."""
    unit: str
    each: dict[str, float]
    """Candidate → its quota."""
    where: Location | None

    def breach(self, path: str, available: float, share: float = 1.0) -> Breach | None:
        """A breach if `needed` is above `share` × `available`."""
        if self.needed <= share * available:
            return None
        of = f"{share:.0%} of " if share < 1 else ""
        text = f"the declared load needs {self.needed:,.0f} {self.unit} > {of}{available:,.0f}"
        return Breach(
            path, text, f"{self.route}: candidates or their quotas", f"{self.needed / share:,.0f}", self.where
        )


def quotas(platform: Platform) -> Iterator[Quota]:
    """The quotas of each route, in tokens and in streams."""
    share, demands = platform.environment.profile.load_share, list(model_demands(platform.graph))
    for demand in {each.name: each for each in demands}.values():
        candidates, where = demand.candidates, demand.edge.target.location
        sharing = [each for each in demands if set(each.route.candidates) & set(demand.route.candidates)]
        tokens = {each.name: float(each.tokens_per_minute) for each in candidates if each.tokens_per_minute}
        if tokens:
            needed = sum(each.tokens_per_minute for each in sharing) * share
            yield Quota(demand.name, needed, "tokens a minute", tokens, where)
        streams = {each.name: float(each.streams) for each in candidates if each.streams}
        if streams:
            yield Quota(demand.name, sum(each.streams for each in sharing) * share, "streams", streams, where)


def quotas_cover_the_load(platform: Platform) -> Iterator[Breach | None]:
    """Compare the declared load of each route with the quotas of all its candidates."""
    for quota in quotas(platform):
        total = sum(quota.each.values())
        if over := quota.breach(quota.route, total):
            yield over
        else:
            close = quota.breach(quota.route, total, FULL)
            yield close and replace(close, severity="warning")


def quotas_cover_the_loss_of_a_candidate(platform: Platform) -> Iterator[Breach | None]:
    """For each candidate: compare the declared load of the route with the sum of the other candidates' quotas."""
    for quota in quotas(platform):
        for lost in quota.each:
            left = sum(value for name, value in quota.each.items() if name != lost)
            yield quota.breach(f"{quota.route} without {lost}", left)


def models_have_prices(platform: Platform) -> Iterator[Breach | None]:
    """Check that each candidate has a price, and a tokenizer if tokens are billed. Compare the cost with the budget."""
    for path, field, where, model in _models(platform):
        lacking = [] if model.price else ["price"]
        if model.tokenizer is None and (model.price is None or model.price.unit == "token"):
            lacking.append("tokenizer")
        text = f"no {' and no '.join(lacking)}: the tokens or the cost of a call cannot be computed"
        yield Breach(path, text, field, "", where) if lacking else None
    budget = platform.site.monthly_model_budget
    if budget is not None:
        spent = model_total(platform)
        text = f"at the mean load model calls cost {spent:,.0f} USD a month > the budget of {budget:,} USD"
        found = Breach(
            "model calls → budget", text, "site.monthly_model_budget, or models and their load", f"{spent:,.0f}"
        )
        yield found if spent > budget else None


def _models(platform: Platform) -> Iterator[tuple[str, str, Location | None, Model]]:
    for edge, route, models in model_edges(platform.graph):
        for candidate in models.candidates(route):
            yield f"{edge.path}: {candidate.name}", f"{candidate.name}.model", edge.callee.location, candidate.model


def in_service(platform: Platform, on: date) -> Iterator[Breach | None]:
    """Compare the day on which each model is shut down with the day of the audit."""
    for path, field, where, model in _models(platform):
        if model.retires is None or on < model.retires - NOTICE:
            yield None
        elif on < model.retires:
            text = f"{model.name} retires on {model.retires}, in {(model.retires - on).days} days"
            yield Breach(path, text, field, "a model that retires later", where, "warning")
        else:
            text = f"{model.name} retired on {model.retires}"
            yield Breach(path, text, field, "a model that its provider still serves", where)


RULES = (
    Rule(
        id="M07",
        title="the candidates' quotas cover the declared load",
        severity="error",
        rationale="providers count tokens: at the quota they refuse even a single further request",
        source="the declared loads, and the providers' quotas",
        violates="100/s × (800 + 200) tokens × 60 = 6,000,000 a minute; two candidates have a quota of 2,999,999 each",
        holds="the same load; two candidates have a quota of 3,750,000 each, so the load is 80% of the sum",
        check=quotas_cover_the_load,
    ),
    Rule(
        id="M08",
        title="if one candidate fails, the quotas of the other candidates cover the declared load",
        severity="error",
        rationale="a fallback with too few tokens for the whole load answers 429 as soon as the first provider fails",
        source="bifrost#120",
        violates="6,000,000 tokens a minute, and the other candidate admits 5,999,999",
        holds="the same load, and the other candidate admits 6,000,000",
        check=quotas_cover_the_loss_of_a_candidate,
    ),
    Rule(
        id="M12",
        title="models have a price and a tokenizer, and do not retire within 30 days",
        severity="error",
        rationale="a retired model answers 404; without a price the cost of a retry loop stays unknown",
        source="agent-fleet-o#145; D04",
        violates="a model that retires in 30 days, or without a price",
        holds="a model that retires in 31 days, with a price and a tokenizer",
        check=models_have_prices,
        check_on=in_service,
    ),
)
