"""Model calls: speed, goodput, fallback, tokens, cost and budgets, by route and by candidate."""

from __future__ import annotations

from components.observability.dashboards import Dashboard, Row, metrics, rate, ratio

ROUTE, CANDIDATE, MODEL = "route", "candidate", "gen_ai_provider_name, gen_ai_request_model"
NAMED = "{{gen_ai_request_model}} at {{gen_ai_provider_name}}"
ENDED = 'kind!~"cancelled|refused"'


def _p95(part: str) -> str:
    histogram = rate(f"gen_ai_client_operation_{part}_seconds_bucket", f"{MODEL}, le")
    return f"histogram_quantile(0.95, {histogram})"


_CALLS = rate("voice_model_calls_total", ROUTE, ENDED)
_SPEED = Row(
    title="Speed",
    panels=(
        metrics(
            "Time to first token",
            "P95 of the time from the request of an attempt to the first content, by model, and the route's objective.",
            {
                NAMED: _p95("time_to_first_chunk"),
                f"objective of {NAMED}": f"max by ({MODEL}) (model:first_token:objective)",
            },
            "s",
        ),
        metrics(
            "Time per token",
            "P95 of an attempt's mean time per token after the first, by model, and the route's objective.",
            {
                NAMED: _p95("time_per_output_chunk"),
                f"objective of {NAMED}": f"max by ({MODEL}) (model:per_token:objective)",
            },
            "s",
        ),
        metrics(
            "Goodput",
            "Share of the calls that succeed within all objectives of their route.",
            {"{{route}}": ratio(rate("voice_model_good_calls_total", ROUTE), _CALLS)},
            "percentunit",
            red_below=0.9,
        ),
        metrics(
            "Calls",
            "Calls that ended, by route and kind. A cut call broke off after its first content.",
            {"{{route}}: {{kind}}": rate("voice_model_calls_total", "route, kind")},
            "reqps",
        ),
    ),
)
_CANDIDATES = Row(
    title="Candidates",
    panels=(
        metrics(
            "Fallback",
            "Share of the calls that needed a second candidate, and share of the calls that were hedged, by route.",
            {
                "{{route}}": ratio(rate("voice_model_fallbacks_total", ROUTE), _CALLS),
                "{{route}} hedged": ratio(rate("voice_model_hedges_total", ROUTE), _CALLS),
            },
            "percentunit",
            red_from=0.1,
        ),
        metrics(
            "Attempts",
            "Attempts that ended, by candidate and by success, cancellation or error class.",
            {"{{candidate}}: {{kind}}": rate("voice_model_attempts_total", "candidate, kind")},
            "reqps",
        ),
        metrics(
            "Candidates in cooldown",
            "Pods in which a candidate is in cooldown, by reason.",
            {"{{candidate}}: {{reason}}": "sum by (candidate, reason) (voice_model_cooldown)"},
            red_from=1,
        ),
        metrics(
            "Days until retirement",
            "Time until the provider shuts a model down. Empty if the provider has announced no day.",
            {"{{candidate}}": f"min by ({CANDIDATE}) (voice_model_retirement_timestamp_seconds) - time()"},
            "dtdurations",
        ),
    ),
)
_TOKENS = rate("voice_model_tokens_total", CANDIDATE)
_COST = Row(
    title="Tokens and cost",
    panels=(
        metrics(
            "Use of the quota",
            "Tokens a minute as a share of the provider's quota.",
            {
                "{{candidate}}": ratio(
                    f"{_TOKENS} * 60", f"on ({CANDIDATE}) max by ({CANDIDATE}) (model:tokens_per_minute:quota)"
                )
            },
            "percentunit",
            red_from=0.8,
        ),
        metrics(
            "Estimated usage",
            "Share of the tokens that the runtime estimated. The provider reported the other tokens.",
            {"{{candidate}}": ratio(rate("voice_model_tokens_total", CANDIDATE, 'source="estimated"'), _TOKENS)},
            "percentunit",
            red_from=0.2,
        ),
        metrics(
            "Cost of an hour",
            "Cost of the attempts at the declared prices, by route.",
            {"{{route}}": f"{rate('voice_model_cost_micro_usd_total', ROUTE)} * 3600 / 1e6"},
            "currencyUSD",
        ),
        metrics(
            "Budgets",
            "Attempts that a budget admitted or rejected. Reservations and settlements that did not reach the store.",
            {
                "{{budget}}: {{kind}}": rate("voice_model_budget_requests_total", "budget, kind"),
                "{{budget}}: without store": rate("voice_model_budget_without_store_total", "budget"),
            },
            "reqps",
        ),
    ),
)


def models() -> Dashboard:
    """The dashboard of model calls."""
    return Dashboard(uid="models", title="Model calls", rows=(_SPEED, _CANDIDATES, _COST))
