"""Alerts on policies: breakers, retries, rejections, degradation, and the bundle that a process enforces.

The series `target:declared` gives the severity and the team of each service.
"""

from __future__ import annotations

from voice_policies import Duration

from components.observability.rules import Alert

__all__ = ["MESH_ALERTS", "POLICY_ALERTS"]

_OF_JOB = "on (job) group_left (team, severity)"
_CALL = "{{ $labels.job }} → {{ $labels.name }}"


def _of_service(expression: str) -> str:
    """An expression for the series of `expression` above 0, with the team and severity of the series' service."""
    return f"{expression} > {_OF_JOB} 0 * target:declared"


def _breaker(state: str) -> str:
    return _of_service(f'max by (job, name) (voice_circuitbreaker_state{{state="{state}"}})')


def _undeclared(info: str) -> str:
    """An expression for the number of a service's pods with an undeclared bundle, and its team and severity."""
    undeclared = f"{info} unless on (job, digest) policy_bundle:digest:declared"
    return _of_service(f"count by (job) ({undeclared})")


def _by_caller(statistic: str) -> str:
    """A statistic of the mesh's proxies, with the calling service as its job."""
    return f'label_replace({statistic}, "job", "$1", "caller", "(.+)")'


_OVERFLOWS = " or ".join(
    _by_caller(f"increase(envoy_cluster_upstream_{each}_overflow[10m])") for each in ("rq_pending", "cx")
)
POLICY_ALERTS = (
    Alert(
        name="BreakerOpen",
        expression=_breaker("open"),
        lasting=Duration("2m"),
        summary=f"{_CALL}: the breaker is open, because too many calls failed or were slow",
        action="Look at the callee's alerts. Until the breaker closes, hard calls fail and fallbacks answer soft ones",
    ),
    Alert(
        name="BreakerHalfOpen",
        # Without calls nothing probes the callee, and a breaker whose break is over stays half-open.
        expression=_of_service(
            '(max by (job, name) (voice_circuitbreaker_state{state="half_open"})'
            " and sum by (job, name) (increase(voice_call_attempts_total[10m])) > 0)"
        ),
        lasting=Duration("10m"),
        summary=f"{_CALL}: the breaker is half-open and does not close",
        action="The service makes calls, but too few succeed in a row. Look for failures in the callee's log",
    ),
    Alert(
        name="RetryBudgetSpent",
        expression=_of_service(
            'sum by (job, name) (increase(voice_call_exhausted_total{reason="budget"}[10m]))',
        ),
        lasting=Duration("10m"),
        summary=f"{_CALL}: so many calls fail that the retry budget is spent, and failures reach the callers",
        action="Look at the callee's alerts. A larger retry budget would only add load to it",
    ),
    Alert(
        name="CallsRejected",
        expression=_of_service("sum by (job, name, direction) (increase(voice_bulkhead_rejected_calls_total[10m]))"),
        lasting=Duration("10m"),
        summary="{{ $labels.job }}: the {{ $labels.direction }} bulkhead of {{ $labels.name }} refuses calls",
        action="The calls that hold the slots are slow: look at their latency before you enlarge the bulkhead",
    ),
    Alert(
        name="ServiceDegraded",
        expression=_of_service('max by (job, level) (voice_degradation_level{level!="normal"})'),
        lasting=Duration("15m"),
        summary="{{ $labels.job }} is degraded to level {{ $labels.level }}: it leaves out features",
        action="Error rate and latency set the level: look at both. It may also be set by hand: docs/runtime.md",
    ),
    Alert(
        name="FallbackMissing",
        expression=_of_service("max by (job, name) (voice_call_fallback_missing)"),
        lasting=Duration("5m"),
        summary=f"{_CALL}: the call is soft, and the service has registered no fallback for it",
        action="Register the fallback in the code; see docs/runtime.md. Until then the call fails like a hard call",
    ),
    Alert(
        name="BundleRefused",
        expression=_of_service('sum by (job) (increase(voice_policy_reloads_total{result="refused"}[15m]))'),
        lasting=Duration("0s"),
        summary="{{ $labels.job }} refuses its new policy bundle and keeps the old one",
        action="The service's log names the fault. Render the bundle with the service's version of voice_policies",
    ),
    Alert(
        name="BundleNotMounted",
        expression=_undeclared("voice_policy_mounted_info"),
        lasting=Duration("15m"),
        summary="{{ $labels.job }}: {{ $value | humanize }} of its pods mount another policy bundle than declared",
        action="Compare the ConfigMap's digest with the declared digest: a deployment may have stopped half-way",
    ),
    Alert(
        name="BundleNotEnforced",
        expression=_undeclared("voice_policy_info"),
        lasting=Duration("15m"),
        summary="{{ $labels.job }}: {{ $value | humanize }} of its pods enforce another policy bundle than declared",
        action="If BundleRefused fires too, read the service's log. Otherwise restart the pods, one at a time",
    ),
    Alert(
        name="BundlesDiffer",
        expression=_of_service("(count by (job) (count by (job, digest) (voice_policy_info)) - 1)"),
        lasting=Duration("30m"),
        summary="{{ $labels.job }}: its pods enforce different policy bundles",
        action="Is a rollout stuck? Compare the digest of each pod in voice_policy_info with the ConfigMap's",
    ),
)
"""Alerts on policies that the runtime enforces."""
MESH_ALERTS = (
    Alert(
        name="MeshBreakerOpen",
        # Envoy has no half-open state: it readmits an endpoint, and ejects it for a longer time if it fails again.
        expression=_of_service(
            f"max by (job, cluster_name) ({_by_caller('envoy_cluster_outlier_detection_ejections_active')})"
        ),
        lasting=Duration("2m"),
        summary="{{ $labels.job }} → {{ $labels.cluster_name }}: the mesh ejects {{ $value | humanize }} failing pods",
        action="Look at the callee's alerts, and at the log of the failing pod. The mesh ejects a service's pod that"
        " answers 5xx, and a pod of a store or proxy that accepts no connection",
    ),
    Alert(
        name="MeshCallsRejected",
        expression=_of_service(f"sum by (job, cluster_name) ({_OVERFLOWS})"),
        lasting=Duration("10m"),
        summary="{{ $labels.job }} → {{ $labels.cluster_name }}: the mesh's bulkhead refuses calls",
        action="The calls that hold the slots are slow: look at their latency before you enlarge the bulkhead",
    ),
)
"""Alerts on policies that the mesh enforces, from the statistics of its proxies."""
