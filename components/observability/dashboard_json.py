"""Dashboards in Grafana's JSON, encoded by the Grafana Foundation SDK, which knows the fields of each kind of panel."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from grafana_foundation_sdk.builders import (
    dashboard,
    elasticsearch,
    gauge,
    logs,
    prometheus,
    stat,
    table,
    tempo,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
)
from grafana_foundation_sdk.models.tempo import SearchTableType

from components.observability.dashboards import (
    ELASTICSEARCH,
    PROMETHEUS,
    TAG,
    TEMPO,
    Dashboard,
    Panel,
    Variable,
)

HEIGHT = 8
SERVICE = "service"
"""The variable that chooses a service. Prometheus stores the service's name in the label `job`."""
Builder: TypeAlias = Any
"""The SDK's builders of panels have the same methods, but no common type."""


@cache
def dashboard_json(board: Dashboard) -> str:
    """A dashboard as text. The text is cached, because the check of its size and the ConfigMap both need it."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .link(_dashboard_dropdown())
        .variables([_variable(each) for each in board.variables])
    )
    number = 0
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title).id(number := number + 1))
        for panel in row.panels:
            built = built.with_panel(_panel(panel).id(number := number + 1))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _dashboard_dropdown() -> dashboard.DashboardLink:
    """The menu of all dashboards. Its links keep the time range and the variables."""
    link = dashboard.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(as_dropdown=True).keep_time(keep_time=True).include_vars(include_vars=True)


def _variable(variable: Variable) -> dashboard.CustomVariable:
    chosen = variable.values[0]
    options = dashboard.CustomVariable(variable.name).label(variable.label).values(",".join(variable.values))
    return options.current(VariableOption(text=chosen, value=chosen))


def _panel(panel: Panel) -> Builder:
    built: Builder
    match panel.shows:
        case "logs":
            built = logs.Panel().datasource(_source("elasticsearch", ELASTICSEARCH)).with_target(_log_query())
        case "traces":
            built = table.Panel().datasource(_source("tempo", TEMPO)).with_target(_trace_query())
        case _:
            built = _metrics(panel)
    return built.title(panel.title).description(panel.description).span(panel.width).height(HEIGHT)


def _metrics(panel: Panel) -> Builder:
    kinds: dict[str, Builder] = {"graph": timeseries.Panel, "gauge": gauge.Panel, "number": stat.Panel}
    built = kinds[panel.shows]()
    built = built.datasource(_source("prometheus", PROMETHEUS)).unit(panel.unit).data_links([_to_service()])
    if panel.shows != "gauge" and panel.red_below is None:
        built = built.min(0)
    if panel.red_from is not None or panel.red_below is not None:
        built = built.thresholds(_thresholds(panel))
    for number, query in enumerate(panel.queries):
        target = (
            prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(chr(ord("A") + number))
        )
        # Exemplars: a dot for a sampled request links to its trace.
        built = built.with_target(target.exemplar(exemplar=True) if panel.shows == "graph" else target.instant())
    return built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    below, above = ("green", "red") if panel.red_below is None else ("red", "green")
    limit = panel.red_from if panel.red_below is None else panel.red_below
    steps = [Threshold(value=None, color=below), Threshold(value=limit, color=above)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _to_service() -> dashboard.DashboardLink:
    """The link from a series to the dashboard of its service, where the service's traces and logs are."""
    url = f"/d/{SERVICE}?var-{SERVICE}=${{__field.labels.job}}&${{__url_time_range}}"
    return dashboard.DashboardLink("Requests, traces and logs of this service").url(url)


def _source(kind: str, uid: str) -> DataSourceRef:
    return DataSourceRef(type_val=kind, uid=uid)


def _log_query() -> elasticsearch.Dataquery:
    """A query for log lines of the service, from its containers or over OTLP."""
    fields = ("attributes.kubernetes.container_name", "resource.attributes.service.name")
    lines = elasticsearch.Logs().id("1").settings(elasticsearch.ElasticsearchLogsSettings().limit("200"))
    query = " OR ".join(f'{field}:"${SERVICE}"' for field in fields)
    return elasticsearch.Dataquery().ref_id("A").query(query).metrics([lines])


def _trace_query() -> tempo.TempoQuery:
    query = tempo.TempoQuery().ref_id("A").query_type("traceql").query(f'{{resource.service.name="${SERVICE}"}}')
    return query.table_type(SearchTableType.TRACES).limit(20)
