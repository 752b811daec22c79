"""Alerts on policies: breakers, retries, rejections, degradation, and the bundle that a process enforces.

Severity and team are those of the service, from `target:declared`.
"""

from __future__ import annotations

from voice_policies import Duration

from components.observability.rules import Alert

__all__ = ["POLICY_ALERTS"]

_OF_JOB = "on (job) group_left (team, severity)"
_CALL = "{{ $labels.job }} → {{ $labels.name }}"


def _of_service(expression: str) -> str:
    """The series that are positive, with team and severity of their service."""
    return f"{expression} > {_OF_JOB} 0 * target:declared"


def _breaker(state: str) -> str:
    return _of_service(f'max by (job, name) (voice_circuitbreaker_state{{state="{state}"}})')


POLICY_ALERTS = (
    Alert(
        name="BreakerOpen",
        expression=_breaker("open"),
        lasting=Duration("2m"),
        summary=f"{_CALL}: the breaker is open, because too many calls failed",
        action="Look at the callee's alerts. While the breaker is open the declared fallback answers",
    ),
    Alert(
        name="BreakerHalfOpen",
        expression=_breaker("half_open"),
        lasting=Duration("10m"),
        summary=f"{_CALL}: the breaker probes the callee and does not close",
        action="Read the callee's log for the probes: they fail, or they hang until their timeout",
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
        summary="{{ $labels.job }}: the bulkhead of {{ $labels.name }} ({{ $labels.direction }}) refuses calls",
        action="The calls that hold the slots are slow: look at their latency before you enlarge the bulkhead",
    ),
    Alert(
        name="ServiceDegraded",
        expression=_of_service('max by (job, level) (voice_degradation_level{level!="normal"})'),
        lasting=Duration("15m"),
        summary="{{ $labels.job }} is degraded to level {{ $labels.level }}: it leaves out features",
        action="Look at its error rate and latency, which set the level; see docs/runtime.md",
    ),
    Alert(
        name="FallbackMissing",
        expression=_of_service("max by (job, name) (voice_call_fallback_missing)"),
        lasting=Duration("5m"),
        summary=f"{_CALL}: the call is soft, and the service has registered no fallback for it",
        action="Register the fallback in the code, see docs/runtime.md. Until then the call fails as a hard one",
    ),
    Alert(
        name="BundleRefused",
        expression=_of_service('sum by (job) (increase(voice_policy_reloads_total{result="refused"}[15m]))'),
        lasting=Duration("0s"),
        summary="{{ $labels.job }} refuses its new policy bundle and goes on with the old one",
        action="Its log names the fault. Render the bundle with the version of voice_policies that the service runs",
    ),
    Alert(
        name="BundlesDiffer",
        expression=_of_service("(count by (job) (count by (job, digest) (voice_policy_info)) - 1)"),
        lasting=Duration("30m"),
        summary="{{ $labels.job }}: its pods enforce different policy bundles",
        action="Is a rollout stuck? Compare the digest of each pod in voice_policy_info with the ConfigMap's",
    ),
)
