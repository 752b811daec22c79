"""Alerts on model calls: speed, goodput, fallback, cooldown, usage, budgets and retirement.

The histograms have the names of OpenTelemetry's conventions for generative AI (semantic-conventions-genai 0.1.0).
The series `target:declared` gives the severity and the team of each service.
"""

from __future__ import annotations

from voice_policies import Duration

from components.observability.rules import Alert

__all__ = [
    "EACH_OBJECTIVE",
    "FIRST_OBJECTIVE",
    "MODEL_ALERTS",
    "MODEL_LABEL",
    "PROVIDER_LABEL",
    "QUOTA",
]

FIRST_OBJECTIVE = "model:first_token:objective"
"""Series of a route's objective for the first token, in seconds, by service, provider and model."""
EACH_OBJECTIVE = "model:per_token:objective"
"""Series of a route's objective for each further token, in seconds, by service, provider and model."""
QUOTA = "model:tokens_per_minute:quota"
"""Series of a provider's quota of tokens per minute, by service and candidate."""
PROVIDER_LABEL, MODEL_LABEL = "gen_ai_provider_name", "gen_ai_request_model"

GOOD = 0.9
"""Smallest share of calls that must meet both objectives. Each objective is a P95, so 5 % of the calls may miss one and
5 % the other."""
FALLING_BACK = 0.1
"""Share of calls that need a second candidate. Above this share the first candidate has a lasting fault."""
CUT = 0.01
"""Share of calls whose answer breaks off after its first content (the platform's error budget for 5xx)."""
ESTIMATED = 0.2
"""Share of tokens that no provider reported. Above this share the reported cost is too inexact."""
FULL = 0.8
"""Share of a provider's quota. Above this share the provider may refuse a burst (rule M07)."""
NOTICE = 30 * 86_400
"""Time in seconds that the team needs to replace a model before its provider shuts it down (rule M12)."""

_OF_JOB = "on (job) group_left (team, severity)"
_SHARE = "{{ $value | humanizePercentage }}"
_TIME = "{{ $value | humanizeDuration }}"
_ROUTE = "{{ $labels.job }} → {{ $labels.route }}"
_CANDIDATE = "{{ $labels.job }} → {{ $labels.candidate }}"
_MODEL = "{{ $labels.job }} → {{ $labels.gen_ai_request_model }} at {{ $labels.gen_ai_provider_name }}"


def _above(expression: str, limit: float) -> str:
    """An expression that selects the series above a limit, and adds the team and severity of their service."""
    return f"{expression} > {_OF_JOB} {limit:g} * target:declared"


def _share(part: str, whole: str, by: str, window: str) -> str:
    """The rate of one counter ÷ the rate of another. The expression has no value if no call ended in the window."""
    counted = (f"sum by ({by}) (rate({metric}[{window}]))" for metric in (part, whole))
    above, below = counted
    return f"({above} / ({below} > 0))"


def _p95_above(histogram: str, objective: str) -> str:
    by = f"job, {PROVIDER_LABEL}, {MODEL_LABEL}"
    quantile = f"histogram_quantile(0.95, sum by ({by}, le) (rate({histogram}_bucket[10m])))"
    return f"{quantile} > on ({by}) group_left (team, severity) {objective}"


_ENDED = 'voice_model_calls_total{kind!~"cancelled|refused"}'

MODEL_ALERTS = (
    Alert(
        name="ModelFirstTokenLate",
        expression=_p95_above("gen_ai_client_operation_time_to_first_chunk_seconds", FIRST_OBJECTIVE),
        lasting=Duration("10m"),
        summary=f"{_MODEL}: the P95 of the time to the first token is {_TIME}, above the objective",
        action="Compare the providers on the dashboard of model calls. Put the faster candidate first in the route",
    ),
    Alert(
        name="ModelTokensSlow",
        expression=_p95_above("gen_ai_client_operation_time_per_output_chunk_seconds", EACH_OBJECTIVE),
        lasting=Duration("10m"),
        summary=f"{_MODEL}: the P95 of the time per token is {_TIME}, above the objective",
        action="Put a faster candidate first in the route, or lower the route's output limit; see rule M02",
    ),
    Alert(
        name="ModelGoodputLow",
        expression=f"{_share('voice_model_good_calls_total', _ENDED, 'job, route', '30m')}"
        f" < {_OF_JOB} {GOOD:g} * target:declared",
        lasting=Duration("10m"),
        summary=f"{_ROUTE}: only {_SHARE} of the calls succeed within all objectives",
        action="The dashboard of model calls shows the missed objective: first token, time per token, or success",
    ),
    Alert(
        name="ModelFallingBack",
        expression=_above(_share("voice_model_fallbacks_total", _ENDED, "job, route", "10m"), FALLING_BACK),
        lasting=Duration("10m"),
        summary=f"{_ROUTE}: {_SHARE} of the calls need a second candidate; both providers may bill these calls",
        action="Read the status page of the first candidate's provider, and the candidate's errors on the dashboard",
    ),
    Alert(
        name="ModelStreamsCut",
        expression=_above(_share('voice_model_calls_total{kind="cut"}', _ENDED, "job, route", "30m"), CUT),
        lasting=Duration("10m"),
        summary=f"{_ROUTE}: {_SHARE} of the answers end in the middle",
        action="A provider or a hop cuts streams. Compare the streams' duration with each hop's time limit (rule M04)",
    ),
    Alert(
        name="ModelResting",
        expression=_above(
            'max by (job, candidate, reason) (voice_model_cooldown{reason!~"quota_exhausted|authentication"})', 0
        ),
        lasting=Duration("10m"),
        summary=f"{_CANDIDATE}: has been in cooldown for 10 minutes ({{{{ $labels.reason }}}})",
        action="Rate limits: raise the quota or lower the load. Other reasons: read the provider's status page",
    ),
    Alert(
        name="ModelCredentialRefused",
        expression=_above(
            'max by (job, candidate, reason) (voice_model_cooldown{reason=~"quota_exhausted|authentication"})', 0
        ),
        lasting=Duration("0s"),
        summary=f"{_CANDIDATE}: the provider refuses the key, or the key's quota is spent ({{{{ $labels.reason }}}})",
        action="Spent quota: raise it at the provider. Refused key: rotate the secret (docs/runbook/secrets.md). Then"
        " restart the pods, which ends the cooldown",
    ),
    Alert(
        name="ModelUsageEstimated",
        expression=_above(
            _share('voice_model_tokens_total{source="estimated"}', "voice_model_tokens_total", "job, candidate", "1h"),
            ESTIMATED,
        ),
        lasting=Duration("30m"),
        summary=f"{_CANDIDATE}: the provider reports no usage for {_SHARE} of the tokens",
        action="Aborted streams report no usage. If few streams are aborted, check whether finished streams report it",
    ),
    Alert(
        name="ModelQuotaBurning",
        expression="sum by (job, candidate) (rate(voice_model_tokens_total[5m])) * 60"
        f" > on (job, candidate) group_left (team, severity) {FULL:g} * {QUOTA}",
        lasting=Duration("10m"),
        summary=f"{_CANDIDATE}: {{{{ $value | humanize }}}} tokens a minute are above 80 % of the provider's quota",
        action="Raise the quota at the provider. Until then another candidate serves calls that this one refuses",
    ),
    Alert(
        name="ModelBudgetRefusing",
        expression=_above(
            'sum by (job, budget) (increase(voice_model_budget_requests_total{kind="rejected"}[10m]))', 0
        ),
        lasting=Duration("10m"),
        summary="{{ $labels.job }}: the budget {{ $labels.budget }} refuses attempts of model calls",
        action="If the budget is a tenant's, the usage events name the tenant. If the budget is a provider's quota, see"
        " ModelQuotaBurning. If the budget's store is down, see ModelBudgetAlone",
    ),
    Alert(
        name="ModelBudgetAlone",
        expression=_above("sum by (job, budget) (increase(voice_model_budget_without_store_total[10m]))", 0),
        lasting=Duration("10m"),
        summary="{{ $labels.job }} cannot reach the store of the budget {{ $labels.budget }}:"
        " each replica enforces its own share, or refuses attempts",
        action="The store `events` holds the budgets, and is down or slow: look at the alerts of `events`",
    ),
    Alert(
        name="ModelUsageLost",
        expression=_above("sum by (job) (increase(voice_model_usage_events_dropped_total[1h]))", 0),
        lasting=Duration("0s"),
        summary="{{ $labels.job }}: {{ $value | humanize }} usage events are lost, so reports show too little cost",
        action="The store `events` was down or full: look at its alerts",
    ),
    Alert(
        name="ModelRetires",
        expression="(max by (job, candidate) (voice_model_retirement_timestamp_seconds) - time()"
        f" < {NOTICE}) + {_OF_JOB} 0 * target:declared",
        lasting=Duration("1h"),
        summary=f"{_CANDIDATE}: its provider shuts the model down in {_TIME}",
        action="Replace the model in the catalogue, then run `voice check`: the rules M01 to M12 check the new model",
    ),
)
"""Alerts on model calls. `stack/voiceassistant/alerting.py` records the objectives and quotas that the alerts read."""
