"""A04, O01, O03, O04, O05: alerts that are missing, cannot fire, or fire too easily."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from voice_policies import Duration

from components.observability.kube_state_metrics import METRICS as STATE_METRICS
from components.observability.runtime_metrics import METRICS as RUNTIME_METRICS
from components.observability.scrape_jobs import KUBELET_METRICS
from components.observability.tempo import METRICS as TRACE_METRICS
from stack.audit.finding import Breach, Rule
from stack.audit.rendered import rendered
from stack.model.platform import Platform

BURN_RATES = {14.4: ("1h", "5m"), 6.0: ("6h", "30m"), 3.0: ("1d", "2h"), 1.0: ("3d", "6h")}
"""Burn rate → its long and short window, for an error budget of 30 days (Site Reliability Workbook, ch. 5).

A burn rate is a multiple of the rate that spends the budget in exactly 30 days.
"""
BURNING = re.compile(r"ratio_rate(\w+) > .*?([\d.]+) \* ([\w:]+:budget)")
"""Finds each condition of a burn-rate alert: its window, its burn rate and its budget series."""
ENOUGH = re.compile(r"increase\w+ > [1-9]")
"""Finds a condition on a minimum number of failures, such as `operation:failed_requests:increase1h > 4`."""
WINDOW = re.compile(r"\[(\d+[smhd])(?::\w*)?\]|ratio_rate(\d+[smhd])")
"""Finds the windows of an expression, in brackets or in the name of a recorded ratio."""
EXPORTED = re.compile(
    r"(gen_ai|apisix|barman_cloud|cnpg|consul|elasticsearch|envoy|fluentbit|otelcol|probe|prometheus|redis"
    r"|alertmanager|go|process)_|^(up|scrape_\w+|ALERTS)$"
)
"""Finds the metrics that the deployed programs export, by their prefixes, and the metrics that Prometheus adds."""
LISTED = frozenset((*RUNTIME_METRICS, *STATE_METRICS, *KUBELET_METRICS, *TRACE_METRICS))
"""All metrics of the programs that export a fixed list of metrics."""
MATCHERS = re.compile(r'"[^"]*"|\'[^\']*\'')
"""Quoted values of label matchers. They may contain braces."""
NO_METRIC = re.compile(
    r"\{[^}]*\}|\[[^\]]*\]|\$\w+|\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"
    r"|(?<![\w:])(?:and|or|unless|bool|offset|group_left|group_right|on|by|inf|nan|atan2"
    r"|sum|max|min|avg|count|count_values|group|quantile|stddev|stdvar|topk|bottomk)(?![\w:])|\b\w+\s*(?=\()|\b\d[\w.]*"
)
"""Finds all parts of a PromQL expression except names of metrics: matchers, windows, variables, labels, keywords,
functions and numbers."""
NAME = re.compile(r"[a-zA-Z_:][\w:]*")
SCHEDULED = {
    "CronJob": ("kube_cronjob_status_last_successful_time", "kube_job_status_failed"),
    # CloudNativePG's own `cnpg_collector_last_available_backup_timestamp` stays 0 if a plugin makes the backups
    # (plugin-barman-cloud#380).
    "ScheduledBackup": (
        "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
        "barman_cloud_cloudnative_pg_io_last_failed_backup_timestamp",
    ),
    "Cluster": ("cnpg_pg_stat_archiver_last_archived_time", "cnpg_pg_stat_archiver_last_failed_time"),
}
"""Kind of a resource with scheduled work → the metric of the last success and the metric of a failure.

The scheduled work of a CloudNativePG `Cluster` is the archiving of its write-ahead log.
"""


class Rules(NamedTuple):
    """The rules that Prometheus evaluates."""

    alerts: tuple[Mapping[str, Any], ...]
    recordings: tuple[Mapping[str, Any], ...]

    @property
    def expressions(self) -> Iterator[tuple[str, str]]:
        """The name and the expression of each rule."""
        yield from ((alert["alert"], alert["expr"]) for alert in self.alerts)
        yield from ((recording["record"], recording["expr"]) for recording in self.recordings)


@lru_cache(maxsize=4)
def rules(platform: Platform) -> Rules:
    """The rules of every rendered rule file."""
    found: list[Mapping[str, Any]] = []
    for config in rendered(platform).of_kind("ConfigMap"):
        if text := config.get("data", {}).get("rules.json"):
            found += [rule for group in json.loads(text)["groups"] for rule in group["rules"]]
    alerts = tuple(rule for rule in found if "alert" in rule)
    return Rules(alerts, tuple(rule for rule in found if "record" in rule))


def _budgets(recordings: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The largest value of each budget series."""
    found: dict[str, float] = {}
    for recording in recordings:
        if recording["record"].endswith(":budget"):
            value = float(recording["expr"].removeprefix("vector(").removesuffix(")"))
            found[recording["record"]] = max(value, found.get(recording["record"], 0))
    return found


def burn_rates(platform: Platform) -> Iterator[Breach | None]:
    """Check that each budget has an alert at every burn rate of the workbook, and that each alert can fire."""
    known = rules(platform)
    seen: dict[str, set[tuple[float, str]]] = defaultdict(set)
    for alert in known.alerts:
        for window, rate, budget in BURNING.findall(alert["expr"]):
            seen[budget].add((float(rate), window))
    for budget, share in _budgets(known.recordings).items():
        wanted = {
            rate: windows for rate, windows in BURN_RATES.items() if not {(rate, w) for w in windows} <= seen[budget]
        }
        if wanted:
            missing = ", ".join(f"{rate:g} over {long} and {short}" for rate, (long, short) in wanted.items())
            yield Breach(budget, f"no alert at a burn rate of {missing}", "objective_alerts", missing)
        for rate in sorted({rate for rate, _ in seen[budget]}):
            text = f"burn rate {rate:g} × budget {share:.4g} = {rate * share:.4g} ≥ 1: the alert cannot fire"
            yield Breach(f"{budget} at {rate:g}", text, "the objective") if rate * share >= 1 else None


def alerts_are_complete(platform: Platform) -> Iterator[Breach | None]:
    """Check that budgets have alerts, that each alert has an action or a runbook, and that each metric has a source."""
    known = rules(platform)
    alerts = " ".join(alert["expr"] for alert in known.alerts)
    for budget in _budgets(known.recordings):
        found = Breach(budget, "no alert reads this budget", "objective_alerts")
        yield None if re.search(rf"(?<![\w:]){re.escape(budget)}(?![\w:])", alerts) else found
    for alert in known.alerts:
        annotations = alert.get("annotations", {})
        found = Breach(f"alert {alert['alert']}", "no action and no runbook", "annotations.action")
        yield None if annotations.get("action") or annotations.get("runbook_url") else found
    recorded = {recording["record"] for recording in known.recordings}
    # An environment that leaves a node out has no series for the objectives of that node.
    without = platform.environment.settings.without
    # Thousands of recordings are constants of the model and read no metric.
    computed = (each for each in known.expressions if not each[1].startswith("vector("))
    for name, expression in (*computed, *_panels(platform)):
        unknown = (
            metric for metric in metrics(expression) - recorded if metric not in LISTED and not EXPORTED.search(metric)
        )
        strange = sorted(metric for metric in unknown if not (without and ":" in metric))
        text = f"nothing exports or records {', '.join(strange)}"
        yield Breach(f"{name}: metrics", text, "the expression") if strange else None


def metrics(expression: str) -> set[str]:
    """The names of the metrics in a PromQL expression."""
    return set(NAME.findall(NO_METRIC.sub(" ", MATCHERS.sub(" ", expression))))


def _panels(platform: Platform) -> Iterator[tuple[str, str]]:
    """The expressions of the dashboards."""
    for config in rendered(platform).of_kind("ConfigMap"):
        for name, text in config.get("data", {}).items():
            if name.endswith(".json") and '"panels"' in text:
                for panel in json.loads(text).get("panels", ()):
                    for target in panel.get("targets", ()):
                        yield f"dashboard {name}: {panel.get('title')}", target.get("expr", "")


def windows_fit_the_retention(platform: Platform) -> Iterator[Breach | None]:
    """Check that no window is longer than the retention of metrics.

    Also check that one failure fires no burn-rate alert.
    """
    kept = platform.environment.settings.metrics.retention
    known = rules(platform)
    for name, expression in known.expressions:
        if expression.startswith("vector("):
            continue
        windows = [Duration(first or second) for first, second in WINDOW.findall(expression)]
        longest = max(windows, default=Duration("0s"))
        text = f"a window of {longest}, but Prometheus keeps metrics for {kept}"
        yield (
            Breach(f"{name}: window", text, "config.voiceassistant:metrics.retention", str(longest))
            if longest > kept
            else None
        )
    for alert in known.alerts:
        if BURNING.search(alert["expr"]):
            text = "no minimum number of failures: at a low request rate one failure fires the alert"
            proposal = "and …:increase1h > 4"
            found = Breach(f"alert {alert['alert']}", text, "the expression", proposal, severity="warning")
            yield None if ENOUGH.search(alert["expr"]) else found


def absent_series_are_detected(platform: Platform) -> Iterator[Breach | None]:
    """Check that at least one alert detects an absent series, and that at least one alert always fires."""
    alerts = rules(platform).alerts
    if not alerts:
        return
    absence = any("absent(" in alert["expr"] or re.search(r"unless\b.*\bup\b", alert["expr"]) for alert in alerts)
    always = any(alert["expr"].replace(" ", "") == "vector(1)" for alert in alerts)
    text = "no alert detects a target that Prometheus does not discover, and other alerts on that target never fire"
    yield None if absence else Breach("absent targets", text, "an alert with absent() or unless … up")
    text = "there is no alert that always fires, so an outage of Prometheus or Alertmanager goes unnoticed"
    yield None if always else Breach("dead man's switch", text, "an alert with vector(1)")


def scheduled_jobs_have_alerts(platform: Platform) -> Iterator[Breach | None]:
    """Check that scheduled jobs, backups and archives have alerts on their failure and on their last success."""
    alerts = " ".join(alert["expr"] for alert in rules(platform).alerts)
    for kind, watching in SCHEDULED.items():
        jobs = [job for job in rendered(platform).of_kind(kind) if not job["spec"].get("suspend")]
        if jobs:
            unseen = [metric for metric in watching if metric not in alerts]
            names = ", ".join(sorted(job["metadata"]["name"] for job in jobs))
            text = f"{names}: no alert reads {' or '.join(unseen)}, so a failure or a delay goes unnoticed"
            yield Breach(kind, text, "platform_alerts") if unseen else None


RULES = (
    Rule(
        id="A04",
        title="every budget has burn-rate alerts that can fire",
        severity="error",
        rationale="without the fast rates an outage is detected late; without the slow rates a slow loss is missed",
        source="Site Reliability Workbook, ch. 5: 14.4, 6, 3 and 1",
        violates="an alert at 14.4 times a budget of 10%: 144% of the requests would have to fail",
        holds="an alert at 14.4 times a budget of 5%",
        check=burn_rates,
    ),
    Rule(
        id="O01",
        title="every budget has an alert, every alert an action or a runbook, every metric an exporter or a recording",
        severity="error",
        rationale="an expression over a metric that nothing exports is empty, and its alert never fires",
        source="kubernetes-mixin; Site Reliability Workbook, ch. 5",
        violates="an alert on voise_operation_requests_total",
        holds="an alert on voice_operation_requests_total",
        check=alerts_are_complete,
    ),
    Rule(
        id="O03",
        title="windows fit the retention of metrics, and one failure fires no burn-rate alert",
        severity="error",
        rationale="a sum over more days than Prometheus keeps is too small; one failure is no reason to page anybody",
        source="pyrra#1925; pyrra#406",
        violates="a window of 3d, with a retention of 1d",
        holds="the same window, with a retention of 3d",
        check=windows_fit_the_retention,
    ),
    Rule(
        id="O04",
        title="an alert detects absent series, and an alert always fires, so that its absence shows a dead Prometheus",
        severity="error",
        rationale="an alert over an absent series does not fire, and a dead Prometheus fires no alert",
        source="awesome-prometheus-alerts#66",
        violates="a set of alerts without an alert that always fires",
        holds="the same set with the alert Watchdog: vector(1)",
        check=absent_series_are_detected,
    ),
    Rule(
        id="O05",
        title="every scheduled job, backup and archive has alerts",
        severity="error",
        rationale="without an alert, nobody learns that backups fail until somebody needs a backup",
        source="cloudnative-pg#9824",
        violates="a CronJob, and no alert on kube_job_status_failed",
        holds="the same CronJob with alerts on its failure and on its last success",
        check=scheduled_jobs_have_alerts,
    ),
)
