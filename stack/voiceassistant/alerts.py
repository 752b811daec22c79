"""Alerts and the teams that receive them.

An alert compares with an objective of the model, which is a series with labels for team and severity. So a new
operation has its alerts as soon as it is declared, without a change here.
"""

from __future__ import annotations

from voice_policies import Duration, Ratio

from components.node import Tier
from components.observability.rules import Alert, Recording, Severity
from stack.voiceassistant.catalog import conversations, intelligence, knowledge

PLATFORM_TEAM = "platform"
"""The team that owns everything that services depend on."""
TEAM_SERVICES = {
    "conversations": conversations.SERVICES,
    "knowledge": knowledge.SERVICES,
    "intelligence": intelligence.SERVICES,
}
TEAMS = {service.name: team for team, services in TEAM_SERVICES.items() for service in services}
"""Service → the team that owns it."""
SEVERITIES: dict[Tier, Severity] = {"core": "critical", "standard": "warning", "batch": "warning"}
"""Severity of a missed objective, by the tier of the service."""

ERROR_BUDGET = Ratio("1%")
"""Error budget of a route: the share of answers with a 5xx status. Source: the platform's targets."""
SLOW_BUDGET = Ratio("5%")
"""Share of an operation's requests that may exceed its P95 objective. 5 % by the definition of P95."""
BURN_RATE = 14.4
"""Multiple of the error budget. At this rate an hour uses 2 % of a 30-day budget (Site Reliability Workbook, ch. 5)."""
FULL = 0.9
"""Share of a declared capacity above which there is no room for a burst."""

_OF_OPERATION = "on (job, operation) group_left (team, severity)"
_OF_JOB = "on (job) group_left (team, severity)"
_OF_ROUTE = "on (route) group_left (job, team, severity)"


def _rate(metric: str, by: str, window: str, *matchers: str) -> str:
    chosen = f"{{{','.join(matchers)}}}" if matchers else ""
    return f"sum by ({by}) (rate({metric}{chosen}[{window}]))"


def _share(metric: str, by: str, window: str, matcher: str) -> str:
    return f"{_rate(metric, by, window, matcher)} / {_rate(metric, by, window)}"


_REQUESTS, _SLOW = "voice_operation_requests_total", "voice_operation_slow_requests_total"
_FAILED, _SERVER_ERROR = 'kind="failed"', 'code=~"5.."'
_LATENCY = _rate("apisix_http_latency_bucket", "route, le", "5m", 'type="request"')

RATES = (
    Recording(name="operation:failures:ratio_rate5m", expression=_share(_REQUESTS, "job, operation", "5m", _FAILED)),
    Recording(name="operation:failures:ratio_rate1h", expression=_share(_REQUESTS, "job, operation", "1h", _FAILED)),
    Recording(
        name="operation:slow:ratio_rate5m",
        expression=f"{_rate(_SLOW, 'job, operation', '5m')} / {_rate(_REQUESTS, 'job, operation', '5m')}",
    ),
    Recording(
        name="route:failures:ratio_rate5m", expression=_share("apisix_http_status", "route", "5m", _SERVER_ERROR)
    ),
    Recording(name="route:seconds:p95_5m", expression=f"histogram_quantile(0.95, {_LATENCY}) / 1000"),
    Recording(
        name="job:requests_per_replica:rate5m",
        expression=f"{_rate(_REQUESTS, 'job', '5m')} / count by (job) (up == 1)",
    ),
)
"""Series that are compared with the objectives. APISIX measures in milliseconds."""

_SLOTS_TAKEN = "max by (job, name, direction) (voice_bulkhead_in_flight_calls / voice_bulkhead_max_concurrent_calls)"

OBJECTIVE_ALERTS = (
    Alert(
        name="TargetDown",
        expression=f"(up{{probe=''}} == 0) + {_OF_JOB} target:declared",
        lasting=Duration("5m"),
        summary="{{ $labels.job }}: {{ $labels.instance }} does not answer Prometheus's scrape",
        action="Is the pod ready? If it runs, curl its port from Prometheus's pod: a NetworkPolicy may block it",
    ),
    Alert(
        name="ProbeFailing",
        expression=f"(probe_success == 0) + {_OF_JOB} target:declared",
        lasting=Duration("2m"),
        summary="{{ $labels.job }}: {{ $labels.instance }} does not answer the probe {{ $labels.probe }}",
        action="Is the pod ready? Read its log. If it serves callers, repeat the probe from the prober's pod",
    ),
    Alert(
        name="TargetMissing",
        expression="target:declared unless on (job) up",
        lasting=Duration("10m"),
        summary="{{ $labels.job }} is declared, but Prometheus finds no pod of it",
        action="Is it scaled to 0, or did its labels or port change? Look at Prometheus's Targets page",
    ),
    Alert(
        name="OperationFailing",
        expression=f"operation:failures:ratio_rate5m > {_OF_OPERATION} {BURN_RATE} * operation:failures:budget"
        f" and on (job, operation) operation:failures:ratio_rate1h > {_OF_OPERATION} {BURN_RATE}"
        " * operation:failures:budget",
        lasting=Duration("2m"),
        summary="{{ $labels.job }}.{{ $labels.operation }} fails {{ $value | humanizePercentage }} of its requests",
        action="Look for an open breaker of a dependency and for the last rollout; then open a trace with an error",
    ),
    Alert(
        name="OperationSlow",
        expression=f"operation:slow:ratio_rate5m > {_OF_OPERATION} operation:slow:budget",
        lasting=Duration("10m"),
        summary="{{ $labels.job }}.{{ $labels.operation }}: {{ $value | humanizePercentage }} of its requests exceed "
        "the P95 objective",
        action="Find the slow hop in a trace; then check whether its service is saturated or its dependency is slow",
    ),
    Alert(
        name="RouteFailing",
        expression=f"route:failures:ratio_rate5m > {_OF_ROUTE} route:failures:budget",
        lasting=Duration("5m"),
        summary="{{ $labels.route }} answers {{ $value | humanizePercentage }} of its requests with a 5xx status",
        action="The gateway's log names the upstream of each failure; look at the alerts of that service",
    ),
    Alert(
        name="RouteSlow",
        expression=f"route:seconds:p95_5m > {_OF_ROUTE} route:seconds:objective",
        lasting=Duration("10m"),
        summary="{{ $labels.route }}: one request in twenty takes more than {{ $value | humanizeDuration }}",
        action="Find the slow hop in a trace of this route; then look at the alerts of its service",
    ),
    Alert(
        name="ServiceSaturated",
        expression=f"job:requests_per_replica:rate5m > {_OF_JOB} {FULL} * job:requests_per_replica:capacity",
        lasting=Duration("10m"),
        summary="{{ $labels.job }} serves {{ $value | humanize }} requests a second per replica, close to its capacity",
        action="If the autoscaler is at its maximum, raise it; otherwise lower the limit of the busiest tenant",
    ),
    Alert(
        name="BulkheadSaturated",
        expression=f"{_SLOTS_TAKEN} > {_OF_JOB} {FULL} * target:declared",
        lasting=Duration("5m"),
        summary="{{ $labels.job }}: {{ $value | humanizePercentage }} of the slots of {{ $labels.name }} are taken",
        action="The calls that hold the slots are slow: look at their latency before you enlarge the bulkhead",
    ),
    Alert(
        name="BreakerOpen",
        expression=f'max by (job, name) (voice_circuitbreaker_state{{state="open"}}) == {_OF_JOB} target:declared',
        lasting=Duration("2m"),
        summary="{{ $labels.job }} no longer calls {{ $labels.name }}: too many calls failed",
        action="Look at the callee's alerts. While the breaker is open the declared fallback answers",
    ),
    Alert(
        name="SagaParked",
        expression=f'max by (job, saga) (voice_saga_unfinished{{state="parked"}}) > {_OF_JOB} 0 * target:declared',
        lasting=Duration("1m"),
        summary="{{ $labels.job }}: {{ $value | humanize }} of its sagas {{ $labels.saga }} are parked, half done",
        action="`voice-saga list --state parked` names the cause; then resume or compensate (docs/sagas.md)",
    ),
    Alert(
        name="DeadLetters",
        expression="sum by (job, stream) (increase(voice_stream_dead_letters_total[1h]))"
        f" > {_OF_JOB} 0 * target:declared",
        lasting=Duration("0s"),
        summary="{{ $labels.job }}: {{ $value | humanize }} messages of {{ $labels.stream }} could not be handled",
        action="The consumer's log has each error: mend it, then publish the dead letters again, see docs/sagas.md",
    ),
)
"""Severity and team come from the objective's service."""

_CERTIFICATE = "probe_ssl_earliest_cert_expiry - time()"
_FREE = "kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes"
_VOLUME = "{{ $labels.namespace }}/{{ $labels.persistentvolumeclaim }}"


def _platform(name: str, severity: Severity, expression: str, lasting: str, summary: str, action: str) -> Alert:
    return Alert(
        name=name,
        severity=severity,
        team=PLATFORM_TEAM,
        expression=expression,
        lasting=Duration(lasting),
        summary=summary,
        action=action,
    )


PLATFORM_ALERTS = (
    _platform(
        "ContainerRestarts",
        "warning",
        "increase(kube_pod_container_status_restarts_total[1h]) > 3",
        "0s",
        "{{ $labels.namespace }}/{{ $labels.pod }}: {{ $labels.container }} restarted {{ $value | humanize }} times",
        "`kubectl describe pod` shows the last state: out of memory, a failed probe, or an error (see the log)",
    ),
    _platform(
        "AutoscalerAtMaximum",
        "warning",
        "kube_horizontalpodautoscaler_status_current_replicas >= kube_horizontalpodautoscaler_spec_max_replicas"
        " > kube_horizontalpodautoscaler_spec_min_replicas",
        "15m",
        "{{ $labels.namespace }}/{{ $labels.horizontalpodautoscaler }} runs at its maximum of replicas",
        "If the load is real, raise the maximum in the catalogue; `voice check` tells if quota and nodes hold it",
    ),
    _platform(
        "VolumeFilling",
        "warning",
        f"predict_linear(kubelet_volume_stats_available_bytes[6h], 4 * 86400) < 0 and {_FREE} < 0.5",
        "1h",
        f"{_VOLUME} will be full within four days at the rate of the last six hours",
        "Shorten the retention or grow the claim: the volume grows in place if its storage class allows it",
    ),
    _platform(
        "VolumeFull",
        "critical",
        f"{_FREE} < 0.1",
        "5m",
        f"{_VOLUME} has {{{{ $value | humanizePercentage }}}} left",
        "Grow the claim now: a store with a full volume stops, and some do not recover by themselves",
    ),
    _platform(
        "CertificateExpires",
        "warning",
        f"{_CERTIFICATE} < 21 * 86400",
        "1h",
        "The certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
        "Set the new certificate and key as the gateway's secret; see docs/deploy.md",
    ),
    _platform(
        "CertificateExpires",
        "critical",
        f"{_CERTIFICATE} < 3 * 86400",
        "0s",
        "The certificate of {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
        "Set the new certificate and key as the gateway's secret today: clients refuse an expired one",
    ),
    _platform(
        "CollectorQueueFilling",
        "warning",
        "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity > 0.5",
        "5m",
        "{{ $labels.exporter }} in {{ $labels.pod }}: {{ $value | humanizePercentage }} of the queue is used",
        "The backend is down or too slow. Restore it before the queue is full: then the Collector refuses data",
    ),
    _platform(
        "TelemetryLost",
        "critical",
        'sum by (job, exporter) (rate({__name__=~"otelcol_exporter_(send|enqueue)_failed_.+"}[5m])) > 0',
        "5m",
        "{{ $labels.exporter }} loses {{ $value | humanize }} items a second",
        "Read the Collector's log: either the queue is full, or the backend rejects the data for good",
    ),
    _platform(
        "RulesFailing",
        "critical",
        "increase(prometheus_rule_evaluation_failures_total[10m]) > 0",
        "5m",
        "{{ $labels.pod }} cannot evaluate {{ $labels.rule_group }}: the alerts of this group cannot fire",
        "Prometheus's Rules page shows the error; a duplicate series is the usual cause",
    ),
    _platform(
        "ConfigurationRefused",
        "warning",
        "prometheus_config_last_reload_successful == 0",
        "5m",
        "{{ $labels.pod }} keeps its old configuration: it refuses the new one",
        "Its log names the line; `promtool check config` finds the same before a deployment",
    ),
    _platform(
        "NotificationsFailing",
        "critical",
        "sum by (job, pod, integration) (rate(alertmanager_notifications_failed_total[5m])) > 0",
        "5m",
        "{{ $labels.pod }} cannot send notifications over {{ $labels.integration }}",
        "Check the receiver's address, and that notifications.network admits it",
    ),
)
