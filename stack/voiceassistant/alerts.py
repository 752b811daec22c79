"""Alerts and the teams that receive them.

Each objective of the model is a series with labels for team and severity. An alert compares a measurement with this
series. So a new operation gets its alerts without a change here.
"""

from __future__ import annotations

from voice_policies import Duration

from components.node import Node, Service, Tier
from components.observability.rules import Alert, Severity
from stack.voiceassistant.burn_rates import Indicator
from stack.voiceassistant.catalog import TEAM_SERVICES
from stack.voiceassistant.model_alerts import MODEL_ALERTS
from stack.voiceassistant.policy_alerts import POLICY_ALERTS

TEAMS = {service.name: team for team, services in TEAM_SERVICES.items() for service in services}
"""Service → the team that owns it."""
SEVERITIES: dict[Tier, Severity] = {"core": "critical", "standard": "warning", "batch": "warning"}
"""Severity of a missed objective, by the tier of the service."""

FULL = 0.9
"""Share of a declared capacity. A load above this share leaves no room for a burst."""

OPERATION_FAILURES = Indicator(subject="operation", name="failures", adjective="failed")
OPERATION_SLOW = Indicator(subject="operation", name="slow", adjective="slow")
SERVER_OUTAGES = Indicator(subject="job", name="outages", adjective="failed", unit="checks")
FLOW_FAILURES = Indicator(subject="flow", name="failures", adjective="failed")
FIRST_MESSAGES = Indicator(subject="call", name="late_first_messages", adjective="late")
DEPENDENCY_FAILURES = Indicator(subject="dependency", name="failures", adjective="failed", unit="attempts")
ROUTE_FAILURES = Indicator(subject="route", name="failures", adjective="failed")
ROUTE_SLOW = Indicator(subject="route", name="slow", adjective="slow")
ROUTE_LATE = Indicator(subject="route", name="late_first_byte", adjective="late")
ROUTE_TIMEOUTS = Indicator(subject="route", name="timeouts", adjective="timed_out")
ROUTE_RATE_LIMITED = Indicator(subject="route", name="rate_limited", adjective="limited")


def severity_of(node: Node) -> Severity:
    """Severity of a missed objective of a node. It is critical for the gateway, because every flow enters there."""
    return SEVERITIES[node.tier] if isinstance(node, Service) else "critical"


_OF_JOB = "on (job) group_left (team, severity)"
_SHARE = "{{ $value | humanizePercentage }}"
_OPERATION = "{{ $labels.job }}.{{ $labels.operation }}"
_ROUTE = "{{ $labels.route }}"
_SLOTS_TAKEN = "max by (job, name, direction) (voice_bulkhead_in_flight_calls / voice_bulkhead_max_concurrent_calls)"

OBJECTIVE_ALERTS = (
    Alert(
        name="TargetDown",
        expression=f"(up{{probe=''}} == 0) + {_OF_JOB} target:declared",
        lasting=Duration("5m"),
        summary="{{ $labels.job }}: {{ $labels.instance }} does not answer Prometheus's scrape",
        action="If the pod runs, curl its metrics port from Prometheus's pod; a timeout means that a NetworkPolicy"
        " blocks it",
    ),
    Alert(
        name="ProbeFailing",
        expression=f"(probe_success == 0) + {_OF_JOB} target:declared",
        lasting=Duration("2m"),
        summary="{{ $labels.job }}: {{ $labels.instance }} does not answer the probe {{ $labels.probe }}",
        action="If the instance is a pod, check that it is ready, and read its log."
        " If clients get answers, repeat the probe from blackbox-exporter's pod",
    ),
    Alert(
        name="TargetMissing",
        expression="target:declared unless on (job) up",
        lasting=Duration("10m"),
        summary="{{ $labels.job }} is declared, but Prometheus finds none of its pods",
        action="Is the workload scaled to 0? Did its labels or its port change? Look at Prometheus's Targets page",
    ),
    *OPERATION_FAILURES.alerts(
        "OperationFailing",
        f"{_OPERATION} fails {_SHARE} of its requests",
        "Look for an open breaker of a dependency and for the last rollout; then open a trace with an error",
    ),
    *OPERATION_SLOW.alerts(
        "OperationSlow",
        f"{_OPERATION}: {_SHARE} of its requests exceed the P95 objective",
        "Find the slow hop in a trace; then check whether its service is saturated or its dependency is slow",
    ),
    Alert(
        name="OperationUncounted",
        expression="operation:failures:budget unless on (job, operation) voice_operation_requests_total"
        " and on (job) up == 1",
        lasting=Duration("15m"),
        summary=f"{_OPERATION} is declared, but its service does not count the requests,"
        " so no alert on this operation can fire",
        action="Compare the service's /metrics with docs/metrics.md: a renamed label or operation is the usual cause",
    ),
    *SERVER_OUTAGES.alerts(
        "ServerUnavailable",
        f"{{{{ $labels.job }}}}: in {_SHARE} of the checks the server did not work",
        "If the server runs in the cluster, look at its pods with `kubectl get pods`."
        " Usual causes: the last rollout, a lost node, a full volume",
    ),
    *FLOW_FAILURES.alerts(
        "FlowFailing",
        f"{{{{ $labels.flow }}}}: {_SHARE} of the requests of this flow fail for the user",
        "Follow the flow's diagram in docs/architecture.md from the gateway; a service with alerts is the failing hop",
    ),
    *FIRST_MESSAGES.alerts(
        "FirstMessageLate",
        f"{{{{ $labels.job }}}} → {{{{ $labels.name }}}}: {_SHARE} of the streams begin later than the P95 objective",
        "Compare the providers in the traces of this call. Put the faster candidate first in the route",
    ),
    *DEPENDENCY_FAILURES.alerts(
        "DependencyFailing",
        f"{{{{ $labels.dependency }}}} fails {_SHARE} of the attempts",
        "Read the provider's status page. With two providers, check in the traces that the second one answers",
    ),
    *ROUTE_FAILURES.alerts(
        "RouteFailing",
        f"{_ROUTE} answers {_SHARE} of its requests with a 5xx status",
        "The gateway's log names the upstream of each failure; look at the alerts of that service",
    ),
    *ROUTE_SLOW.alerts(
        "RouteSlow",
        f"{_ROUTE}: {_SHARE} of its answers exceed the P95 objective",
        "Find the slow hop in a trace of this route; then look at the alerts of the slow service",
    ),
    *ROUTE_LATE.alerts(
        "RouteFirstByteLate",
        f"{_ROUTE}: the first byte of {_SHARE} of its answers arrives later than the P95 objective",
        "The first stage of the operation yields the first byte: find the slow call of this stage in a trace",
    ),
    *ROUTE_TIMEOUTS.alerts(
        "RouteTimingOut",
        f"{_ROUTE} answers {_SHARE} of its requests with status 504, a timeout of gateway or service",
        "Look at the alerts of the route's service; a saturated or hanging dependency is the usual cause",
    ),
    *ROUTE_RATE_LIMITED.alerts(
        "RouteLimiting",
        f"{_ROUTE} refuses {_SHARE} of its requests because of a rate limit",
        "Find the clients with status 429 in the gateway's log. Ask them to send less, or raise the limit they exceed",
    ),
    Alert(
        name="GatewayUncounted",
        expression="target:declared{job='gateway'} unless on () count(apisix_http_status)",
        lasting=Duration("15m"),
        summary="The gateway counts no requests, so no alert on a route can fire",
        action="If clients send requests now, check whether /apisix/prometheus/metrics has apisix_http_status",
    ),
    Alert(
        name="ServiceSaturated",
        expression=f"job:requests_per_replica:rate5m > {_OF_JOB} {FULL} * job:requests_per_replica:capacity",
        lasting=Duration("10m"),
        summary="{{ $labels.job }} serves {{ $value | humanize }} requests a second per replica,"
        " above 90 % of a replica's capacity",
        action="If the autoscaler is at its maximum, raise the maximum. Otherwise lower the busiest tenant's limit",
    ),
    Alert(
        name="AttemptsAboveBound",
        # Up to 100 requests in 30 min raise no alert: a few requests at the edge of the window could exceed the bound.
        expression="(operation:requests:rate30m > on (job, operation) 1.05 * operation:requests:allowed_rate30m"
        " and operation:requests:rate30m * 1800 > 100)"
        " + on (job, operation) group_left (team, severity) 0 * operation:failures:budget",
        lasting=Duration("10m"),
        summary=f"{_OPERATION} receives {{{{ $value | humanize }}}} requests a second,"
        " more than its callers' policies allow",
        action="A layer retries without a declared policy. To find it, compare the callers' voice_call_attempts_total",
    ),
    Alert(
        name="BulkheadSaturated",
        expression=f"{_SLOTS_TAKEN} > {_OF_JOB} {FULL} * target:declared",
        lasting=Duration("5m"),
        summary="{{ $labels.job }}: calls hold {{ $value | humanizePercentage }} of the slots for {{ $labels.name }}",
        action="The calls that hold the slots are slow: look at their latency before you enlarge the bulkhead",
    ),
    *POLICY_ALERTS,
    *MODEL_ALERTS,
    Alert(
        name="SagaParked",
        expression=f'max by (job, saga) (voice_saga_unfinished{{state="parked"}}) > {_OF_JOB} 0 * target:declared',
        lasting=Duration("1m"),
        summary="{{ $labels.job }}: {{ $value | humanize }} parked sagas of {{ $labels.saga }} wait for a person",
        action="`voice-saga list --state parked` names the cause; then resume or compensate each saga (docs/sagas.md)",
    ),
    Alert(
        name="DeadLetters",
        expression="sum by (job, stream) (increase(voice_stream_dead_letters_total[1h]))"
        f" > {_OF_JOB} 0 * target:declared",
        lasting=Duration("0s"),
        summary="{{ $labels.job }} could not handle {{ $value | humanize }} messages of {{ $labels.stream }}"
        " in the last hour",
        action="The consumer's log has each error. Fix the cause, then publish the messages again (docs/sagas.md)",
    ),
)
"""Alerts on objectives. The objective's series has the team and the severity. Alerts named `…ForDays` are warnings."""
