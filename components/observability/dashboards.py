"""Grafana's dashboards as data: variables, and rows of panels with queries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from voice_policies import ClosedModel

from components.operation import Name, Sentence

__all__ = [
    "COLUMNS",
    "Dashboard",
    "Panel",
    "Row",
    "Variable",
    "metrics",
    "rate",
    "ratio",
]

PROMETHEUS, ALERTMANAGER, TEMPO, JAEGER, ELASTICSEARCH = "prometheus", "alertmanager", "tempo", "jaeger", "logs"
"""Uids of the data sources. They must never change, because dashboards, links and bookmarks contain them."""
TAG = "voiceassistant"
"""Tag of every dashboard. The menu of each dashboard lists the dashboards with the tag."""
Unit = Literal["reqps", "percentunit", "s", "ms", "short", "bytes", "Bps", "currencyUSD", "dtdurations"]
"""Identifiers of Grafana's units (`@grafana/data`, `valueFormats/categories.ts`)."""
COLUMNS = 24
"""Width of Grafana's grid."""


class Query(ClosedModel):
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""


class Panel(ClosedModel):
    """A panel. Its queries show metrics.

    The kinds `logs` and `traces` need no query: they show the logs or the traces of `$service`.
    """

    title: Sentence
    description: Sentence
    unit: Unit = "short"
    queries: tuple[Query, ...] = ()
    shows: Literal["graph", "gauge", "number", "logs", "traces"] = "graph"
    width: Annotated[int, Field(ge=1, le=COLUMNS)] = COLUMNS // 2
    red_from: float | None = None
    """The panel is red from this value on. `None`: it is never red, or `red_below` decides."""
    red_below: float | None = None
    """The panel is red below this value."""


class Row(ClosedModel):
    """A heading and the panels below it."""

    title: Sentence
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]


class Variable(ClosedModel):
    """A choice at the top of a dashboard. Queries name it as `$name`."""

    name: Name
    label: Sentence
    values: Annotated[tuple[str, ...], Field(min_length=1)]


class Dashboard(ClosedModel):
    """A page of rows."""

    uid: Name
    title: Sentence
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    variables: tuple[Variable, ...] = ()


def rate(metric: str, by: str, matchers: str = "") -> str:
    """The rate of a counter, summed by labels."""
    selected = f"{metric}{{{matchers}}}" if matchers else metric
    return f"sum by ({by}) (rate({selected}[$__rate_interval]))"


def ratio(above: str, below: str) -> str:
    """The quotient of two expressions, whose series match by their labels."""
    return f"{above} / {below}"


def metrics(title: str, description: str, series: dict[str, str], unit: Unit = "short", **options: object) -> Panel:
    """A panel with a legend for each series; `options` are other fields of `Panel`."""
    queries = tuple(Query(expression=expression, legend=legend) for legend, expression in series.items())
    return Panel.model_validate(
        {"title": title, "description": description, "unit": unit, "queries": queries, **options}
    )
