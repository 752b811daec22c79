from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from components.edge.egress_proxy import EgressProxy
from components.edge.envoy import METRICS_PATH
from components.observability.dashboard_json import dashboard_json
from components.observability.grafana import Grafana
from components.observability.runtime_metrics import METRICS as RUNTIME_METRICS
from stack.voiceassistant import TENANT
from tests.cluster.alert_cases import CASES
from tests.components.edge import envoy_program
from tests.components.observability.servers import rendered
from tests.components.observability.test_dashboards import decoded, named
from tests.platforms import ENVIRONMENTS, platform
from tests.stack.voiceassistant.exported_metrics import ENVOY, exported, recorded

known = cache(exported)
SENT = {"$__rate_interval": "2m", "$service": "rag-engine", "$dependency": "redis"}
"""Variable → the value that Grafana sends in place of it."""
MEASURED = {"voice_call_seconds_total", "voice_operation_seconds_total", "voice_operation_slow_requests_total"}


def grafana(environment: str = "prod") -> Grafana:
    (found,) = (each for each in platform(environment).components if isinstance(each, Grafana))
    return found


def boards(environment: str = "prod") -> dict[str, dict[str, Any]]:
    return {board.uid: json.loads(dashboard_json(board)) for board in grafana(environment).dashboards}


def expressions() -> Iterator[str]:
    for board in boards().values():
        for panel in board["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()) if "expr" in target)
    for source in yaml.safe_load(grafana().files["datasources.yaml"])["datasources"]:
        for query in source["jsonData"].get("tracesToMetrics", {}).get("queries", ()):
            yield query["query"].replace("$$__tags", 'service="orders"')


def sent(expression: str) -> str:
    for variable, value in SENT.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def parsed(expression: str) -> promql_parser.Expr:
    return promql_parser.parse(sent(expression))


def strangers(expression: str) -> list[str]:
    """Metrics that a query reads and nothing exports, and labels that the query's metrics do not have."""
    found: list[str] = []
    labels: set[str] = set()

    def visit(node: Any) -> None:
        nonlocal labels
        if isinstance(node, promql_parser.VectorSelector):
            name = node.name or ""
            own = known().get(name)
            if own is None:
                found.append(name)
                return
            labels |= own
            found.extend(f"{name}{{{each.name}}}" for each in node.matchers.matchers if each.name not in own)

    tree = parsed(expression)
    promql_parser.walk(tree, pre_visit=visit)

    def grouped(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            found.extend(label for label in node.modifier.labels if label not in labels)

    promql_parser.walk(tree, pre_visit=grouped)
    return found


@pytest.mark.parametrize("expression", sorted(set(expressions())), ids=lambda expression: expression[:80])
def test_a_query_parses_and_names_only_exported_metrics(expression: str) -> None:
    assert strangers(expression) == []


def names(expression: Any) -> set[str]:
    found: set[str] = set()
    promql_parser.walk(expression, pre_visit=lambda node: found.add(getattr(node, "name", "")))
    return found


def test_a_mean_time_divides_only_by_successful_and_failed_attempts_or_requests() -> None:
    """The runtime does not measure the time of ignored and cancelled attempts and requests."""
    quotients = 0
    for tree in map(parsed, expressions()):
        if not isinstance(tree, promql_parser.BinaryExpr) or not names(tree.lhs) & MEASURED:
            continue
        quotients += 1
        assert 'kind=~"successful|failed"' in tree.rhs.prettify(), tree.prettify()
    assert quotients >= 6


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        ("sum by (job) (rate(voice_operation_request_total[5m]))", ["voice_operation_request_total", "job"]),
        ('voice_circuitbreaker_state{stat="open"}', ["voice_circuitbreaker_state{stat}"]),
        ("sum by (operatio) (voice_operation_requests_total)", ["operatio"]),
    ],
)
def test_a_misspelt_metric_or_label_is_seen(wrong: str, seen: list[str]) -> None:
    assert strangers(wrong) == seen


def test_an_invalid_promql_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"invalid|unexpected|unclosed"):
        parsed("sum by (job) (rate(up[5m])")


def test_envoy_exports_the_metrics_that_the_dashboards_name(tmp_path: Path) -> None:
    """An idle Envoy exports the statistics of its listeners and clusters with the value 0."""
    proxy = next(each for each in platform("prod").components if isinstance(each, EgressProxy))
    (pod,) = (each["spec"]["template"]["spec"] for each in rendered(proxy, "Deployment"))
    hosts = {host.host: 9 for allowed in proxy.allow_lists for host in allowed.hosts}
    with envoy_program.running(
        envoy_program.rendered(proxy), pod["containers"][0]["args"], hosts, tmp_path / "envoy"
    ) as running:
        _, text = running.ask("GET", METRICS_PATH)
    seen = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert ENVOY.keys() - seen == set()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_grafanas_sdk_reads_every_field_of_every_dashboard(environment: str) -> None:
    for board in boards(environment).values():
        assert decoded(board) == board


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_panels_of_a_dashboard_do_not_overlap(environment: str) -> None:
    for uid, board in boards(environment).items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24, (uid, panel["title"])
            assert not cells & taken, (uid, panel["title"])
            taken |= cells
        assert board["panels"][0]["type"] == "row"


def test_exactly_the_listed_dashboards_exist() -> None:
    assert {*boards()} == {
        "overview", "objectives", "service", "dependency", "gateway", "datastores", "mesh", "sagas", "models",
        "capacity",
    }  # fmt: skip
    assert set(named(list(boards().values()))) == {"prometheus", "tempo", "logs"}


@pytest.mark.parametrize("target", TENANT.targets, ids=lambda target: target.title)
def test_the_series_alerts_and_panels_of_a_target_exist(target: object) -> None:
    found = next(each for each in TENANT.targets if each is target)
    if found.instead:
        return
    assert {*found.series, found.objective} <= recorded().keys()
    alerts = {alert.name: alert for alert in TENANT.alerting.objective_alerts}
    for name in found.alerts:
        case = CASES[name, alerts[name].severity]
        assert case.silent is not None  # the alert stays silent while the platform is healthy
        assert case.firing != case.silent
        assert found.objective
        assert found.objective in alerts[name].expression
    shown = {panel["title"] for panel in boards()["overview"]["panels"]}
    assert {panel.title for panel in found.panels} <= shown


def test_the_audit_knows_exactly_the_metrics_that_services_export() -> None:
    assert {*RUNTIME_METRICS} == {name for name in exported() if name.startswith("voice_")}
