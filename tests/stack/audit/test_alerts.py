from __future__ import annotations

import json
from typing import Any

import pytest

from stack.audit.alerts import metrics
from stack.audit.finding import Finding
from tests.stack.audit.rule_findings import of_manifests, verdict

BUDGET = "operation:failures:budget"
ACTION = {"action": "look at the last rollout"}


def recorded(share: float) -> dict[str, Any]:
    return {"record": BUDGET, "expr": f"vector({share})"}


def alert(expression: str, name: str = "Failing", annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {"alert": name, "expr": expression, "annotations": ACTION if annotations is None else annotations}


def burning(rate: float, *windows: str, enough: bool = True) -> dict[str, Any]:
    burns = " and ".join(f"operation:failures:ratio_rate{each} > on (job) {rate} * {BUDGET}" for each in windows)
    return alert(f"{burns} and operation:failed_requests:increase1h > 4" if enough else burns)


WORKBOOK = (burning(14.4, "1h", "5m"), burning(6, "6h", "30m"), burning(3, "1d", "2h"), burning(1, "3d", "6h"))
SERIES = [
    {"record": f"operation:failures:ratio_rate{window}", "expr": "voice_operation_requests_total"}
    for window in ("1h", "5m", "6h", "30m", "1d", "2h", "3d")
] + [{"record": "operation:failed_requests:increase1h", "expr": "voice_operation_requests_total"}]


def found(rule: str, *rules: dict[str, Any], others: tuple[dict[str, Any], ...] = ()) -> tuple[Finding, ...]:
    text = json.dumps({"groups": [{"name": "all", "rules": list(rules)}]})
    config = {"kind": "ConfigMap", "metadata": {"name": "prometheus"}, "data": {"rules.json": text}}
    return verdict(rule, of_manifests(config, *others)).findings


def test_a04_finds_a_missing_burn_rate() -> None:
    assert found("A04", recorded(0.05), *WORKBOOK) == ()
    (missing,) = found("A04", recorded(0.05), *WORKBOOK[:3])
    assert missing.arithmetic == "no alert at a burn rate of 1 over 3d and 6h"


@pytest.mark.parametrize(
    ("share", "count"), [(0.0694, 0), (0.0695, 1)], ids=["99.94 % of the requests", "100.08 % of the requests"]
)
def test_a04_finds_an_alert_that_cannot_fire(share: float, count: int) -> None:
    """14.4 × 6.95 % = 100.08 % is more than all requests."""
    assert len(found("A04", recorded(share), *WORKBOOK)) == count


def test_o01_finds_a_missing_alert_a_missing_action_and_a_missing_exporter() -> None:
    assert found("O01", recorded(0.01), *SERIES, WORKBOOK[0]) == ()
    (alone,) = found("O01", recorded(0.01))
    assert alone.path == BUDGET
    (silent,) = found("O01", alert("up == 0", annotations={}))
    assert silent.path == "alert Failing"
    (misspelt,) = found("O01", alert("sum by (job) (rate(voise_requests_total{code=~'5..'}[5m])) > 0"))
    assert misspelt.arithmetic == "nothing exports or records voise_requests_total"


def test_o01_knows_every_metric_of_the_runtime_by_name() -> None:
    assert found("O01", alert("voice_operation_requests_total > 0")) == ()
    (misspelt,) = found("O01", alert("voice_operation_request_total > 0"))
    assert misspelt.arithmetic == "nothing exports or records voice_operation_request_total"


def test_o01_knows_which_metrics_a_program_is_configured_to_export() -> None:
    assert found("O01", alert("kube_job_status_failed > 0")) == ()
    (unlisted,) = found("O01", alert("kube_job_status_active > 0"))
    assert unlisted.arithmetic == "nothing exports or records kube_job_status_active"


def test_o01_reads_the_panels_of_dashboards() -> None:
    panels = {"panels": [{"title": "Load", "targets": [{"expr": "rate(unknown_total[$window])"}]}]}
    board = {"kind": "ConfigMap", "metadata": {"name": "board"}, "data": {"service.json": json.dumps(panels)}}
    (panel,) = found("O01", others=(board,))
    assert panel.path == "dashboard service.json: Load: metrics"


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up == 0", {"up"}),
        ("histogram_quantile(0.95, sum by (le, job) (rate(voice_x_bucket{a='}'}[5m]))) / 1e3", {"voice_x_bucket"}),
        ("a:b:c > on (job) group_left (team) 14.4 * d:e and on (job) up == 1", {"a:b:c", "d:e", "up"}),
        ("0 * job:x:max or max by (job) (up)", {"job:x:max", "up"}),
        ("topk(5, voice_a_total offset 1d) unless on () count(voice_b)", {"voice_a_total", "voice_b"}),
    ],
)
def test_metrics_are_distinguished_from_functions_labels_and_keywords(expression: str, names: set[str]) -> None:
    assert metrics(expression) == names


@pytest.mark.parametrize(("window", "count"), [("1d", 0), ("25h", 1)])
def test_o03_finds_a_window_beyond_the_retention(window: str, count: int) -> None:
    """The toy tenant keeps metrics for a day."""
    assert len(found("O03", alert(f"increase(voice_x_total[{window}]) > 0"))) == count


def test_o03_finds_a_burn_rate_alert_that_fires_after_one_failure() -> None:
    (nervous,) = found("O03", burning(14.4, "1h", "5m", enough=False))
    assert nervous.severity == "warning"
    assert found("O03", burning(14.4, "1h", "5m")) == ()
    any_failure = burning(14.4, "1h", "5m")
    any_failure["expr"] = any_failure["expr"].replace("> 4", "> 0")
    assert len(found("O03", any_failure)) == 1


def test_o04_finds_missing_alerts_on_absent_targets_and_on_a_dead_prometheus() -> None:
    always, absent = alert("vector(1)", "Watchdog"), alert("absent(up{job='a'})", "Absent")
    assert {each.path for each in found("O04", alert("up == 0"))} == {"absent targets", "dead man's switch"}
    assert found("O04", always, absent) == ()
    assert found("O04", always, alert("target:declared unless on (job) up", "Missing")) == ()
    assert verdict("O04", of_manifests()).text == "does not apply"


def test_o05_requires_alerts_on_a_failed_and_on_a_late_cronjob_unless_it_is_suspended() -> None:
    spec: dict[str, Any] = {"jobTemplate": {"spec": {"template": POD}}}
    job = {"kind": "CronJob", "metadata": {"name": "backup"}, "spec": spec}
    (unseen,) = found("O05", others=(job,))
    assert unseen.arithmetic.startswith("backup: no alert reads kube_cronjob_status_last_successful_time or kube_job")
    failed, late = alert("kube_job_status_failed > 0"), alert("time() - kube_cronjob_status_last_successful_time > 1e5")
    assert found("O05", failed, late, others=(job,)) == ()
    assert len(found("O05", failed, others=(job,))) == 1
    asleep = {**job, "spec": {**spec, "suspend": True}}
    assert found("O05", others=(asleep,)) == ()


SIZES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
POD = {"spec": {"containers": [{"name": "backup", "resources": SIZES}]}}


def test_a04_lists_all_missing_burn_rates_and_uses_the_largest_value_of_a_budget() -> None:
    (missing,) = found("A04", recorded(0.05), WORKBOOK[0])
    assert missing.proposal == "6 over 6h and 30m, 3 over 1d and 2h, 1 over 3d and 6h"
    (beyond,) = found("A04", recorded(0.0695), recorded(0.05), *WORKBOOK)
    assert beyond.path == f"{BUDGET} at 14.4"
    assert [each.path for each in found("A04", recorded(1), *WORKBOOK)] == [
        f"{BUDGET} at {rate}" for rate in ("1", "3", "6", "14.4")
    ]


def test_o01_accepts_a_runbook_without_an_action() -> None:
    assert found("O01", alert("up == 0", annotations={"runbook_url": "docs/runbook.md"})) == ()
    without = {"alert": "Failing", "expr": "up == 0"}
    assert [each.path for each in found("O01", without)] == ["alert Failing"]


def test_o01_accepts_an_alert_whose_expression_begins_with_a_recorded_budget() -> None:
    assert found("O01", recorded(0.1), alert("up == 0"), alert(f"{BUDGET} > 0", "Spent")) == ()
    (strange,) = found("O01", alert("b_total > a_total"))
    assert strange.arithmetic == "nothing exports or records a_total, b_total"


def test_o01_requires_no_recording_of_a_node_that_is_not_deployed() -> None:
    alone = alert("job:gone:ratio > a_total")
    assert [each.arithmetic for each in found("O01", alone)] == ["nothing exports or records a_total, job:gone:ratio"]
    rules = json.dumps({"groups": [{"name": "all", "rules": [alone]}]})
    config = {"kind": "ConfigMap", "metadata": {"name": "prometheus"}, "data": {"rules.json": rules}}
    reduced = of_manifests(config)
    settings = reduced.environment.settings.model_copy(update={"without": ("gone",)})
    reduced.environment = reduced.environment.model_copy(update={"settings": settings})
    assert [each.arithmetic for each in verdict("O01", reduced).findings] == ["nothing exports or records a_total"]


def test_o01_ignores_files_that_are_no_dashboard() -> None:
    text = {"type": "text", "title": "Read me"}
    load = {"title": "Load", "targets": [{"expr": "unknown_total"}, {"legendFormat": "no query"}]}
    files = {
        "notes.txt": 'the "panels" of a board',
        "list.json": json.dumps(["board"]),
        "other.json": json.dumps({"dashboard": {"panels": []}}),
        "board.json": json.dumps({"panels": [text, load]}),
    }
    empty = {"kind": "ConfigMap", "metadata": {"name": "empty"}}
    boards = {"kind": "ConfigMap", "metadata": {"name": "boards"}, "data": files}
    assert [each.path for each in found("O01", others=(empty, boards))] == ["dashboard board.json: Load: metrics"]


def test_o03_checks_the_windows_of_recordings_too() -> None:
    long = {"record": "job:failed:increase25h", "expr": "increase(voice_x_total[25h])"}
    (beyond,) = found("O03", recorded(0.05), long)
    assert (beyond.path, beyond.proposal) == ("job:failed:increase25h: window", "25h")


def test_o04_ignores_spaces_in_the_expression_of_the_always_firing_alert() -> None:
    assert found("O04", alert("vector( 1 )", "Watchdog"), alert("absent(up)", "Absent")) == ()


def test_o05_reports_all_jobs_in_one_finding() -> None:
    spec: dict[str, Any] = {"jobTemplate": {"spec": {"template": POD}}}
    jobs = [{"kind": "CronJob", "metadata": {"name": name}, "spec": spec} for name in ("purge", "backup")]
    (unseen,) = found("O05", others=tuple(jobs))
    assert unseen.arithmetic.startswith("backup, purge: no alert reads")
