"""Models: the providers, deployments, routes and budgets of language and speech models.

The owners have stated none of these facts yet. Names, speeds, quotas and prices are assumptions of 2026-11, until
contracts replace them. Two providers serve each route, and one working provider is enough. The providers
use different egress proxies, so a broken proxy makes only one of them unreachable.

`llm.generate` needs deployments that decode 230 tokens a second. A question has 2.5 s for its whole answer, retrieval
included. The call of `llm.generate` has 900 ms of this time: 250 ms to the first token, and 149 × 4.3 ms for the other
tokens.
"""

from __future__ import annotations

from datetime import date

from voice_policies import (
    Capability,
    Duration,
    Model,
    ModelHedge,
    ModelPrice,
    ModelRoute,
    OutputLimit,
    StreamLatency,
    StreamTimeout,
    TokenBudget,
)

from components.models import Deployment, ModelDependency, Provider, route
from components.node import Client, Host
from components.operation import ModelUse
from stack.voiceassistant.catalog.dependencies import PROVIDER
from stack.voiceassistant.site import EGRESS_PROXIES

ASSUMED_ON = date(2026, 11, 30)
BUDGETS, USAGE = "events.reserve", "events.append"
"""Calls to the durable Valkey. The cache evicts keys, but no counter of a budget and no usage event may be evicted."""
DEFAULT_ROUTE = "llm.generate"
"""The route of an answer if model-router does not choose one."""


def _provider(name: str, host: str, egress: str) -> Provider:
    return Provider(name=name, host=Host(host=host, port=443, egress=egress))


def _price(unit_input: float, output: float = 0.0, **options: object) -> ModelPrice:
    values = {
        **options,
        "input": unit_input,
        "output": output,
        "as_of": ASSUMED_ON,
        "source": "assumption, no contract",
    }
    return ModelPrice.model_validate(values)


def _latency(first: str, each_further: str = "0s") -> StreamLatency:
    return StreamLatency(first_token=Duration(first), per_token=Duration(each_further))


OPENAI = _provider("openai", "api.openai.com", EGRESS_PROXIES[0])
MISTRAL = _provider("mistral", "api.mistral.ai", EGRESS_PROXIES[1])
AZURE = _provider("azure", "eastus.stt.speech.microsoft.com", EGRESS_PROXIES[0])
GOOGLE = _provider("google", "speech.googleapis.com", EGRESS_PROXIES[1])
TOKENIZERS = {OPENAI.name: "o200k_base", MISTRAL.name: "tekken"}


def _pair(
    kind: str,
    providers: tuple[tuple[Provider, str], ...],
    capabilities: tuple[Capability, ...],
    *,
    context: int,
    price: ModelPrice,
    latency: StreamLatency,
    **quota: int,
) -> tuple[Deployment, ...]:
    """A deployment of one kind at each provider. They differ only in provider, model name and tokenizer."""
    return tuple(
        Deployment(
            name=f"{provider.name}-{kind}",
            provider=provider.name,
            model=Model(
                name=name,
                capabilities=capabilities,
                context_window=context,
                tokenizer=TOKENIZERS.get(provider.name),
                price=price,
            ),
            latency=latency,
            **quota,
        )
        for provider, name in providers
    )


def _names(deployments: tuple[Deployment, ...]) -> tuple[str, ...]:
    return tuple(deployment.name for deployment in deployments)


GENERATE = _pair(
    "generate",
    ((OPENAI, "gpt-4o-mini"), (MISTRAL, "mistral-small")),
    ("text", "streaming", "tools"),
    context=128_000,
    price=_price(0.15, 0.60),
    latency=_latency("250ms", "4.3ms"),
    tokens_per_minute=20_000_000,
)
REWRITE = _pair(
    "rewrite",
    ((OPENAI, "gpt-4.1-nano"), (MISTRAL, "ministral-3b")),
    ("text", "streaming"),
    context=128_000,
    price=_price(0.05, 0.20),
    latency=_latency("80ms", "4.3ms"),
    tokens_per_minute=5_000_000,
)
RERANK = _pair(
    "rerank",
    ((OPENAI, "rerank-small"), (MISTRAL, "mistral-rerank")),
    ("reranking",),
    context=32_000,
    price=_price(0.02),
    latency=_latency("80ms"),
    tokens_per_minute=150_000_000,
)
EMBED = _pair(
    "embed",
    ((OPENAI, "text-embedding-3-small"), (MISTRAL, "mistral-embed")),
    ("embeddings",),
    context=8_192,
    price=_price(0.02),
    latency=_latency("50ms"),
    tokens_per_minute=40_000_000,
)
RECOGNIZE = _pair(
    "recognize",
    ((AZURE, "transcribe"), (GOOGLE, "transcribe")),
    ("transcription", "streaming"),
    context=16_000,
    price=_price(100, unit="audio_second"),  # 0.006 USD a minute
    latency=_latency("250ms"),
    streams=200,
)
SYNTHESIZE = _pair(
    "synthesize",
    ((AZURE, "speak"), (GOOGLE, "speak")),
    ("speech", "streaming"),
    context=4_000,
    price=_price(15, unit="character"),
    latency=_latency("300ms"),
    streams=200,
)
DEPLOYMENTS = (*GENERATE, *REWRITE, *RERANK, *EMBED)
SPEECH_DEPLOYMENTS = (*RECOGNIZE, *SYNTHESIZE)


def _waits(first_token: str, total: str) -> StreamTimeout:
    return StreamTimeout(first_token=Duration(first_token), total=Duration(total))


def _budget(tokens: int, window: str) -> TokenBudget:
    return TokenBudget(key="tenant", tokens=tokens, window=Duration(window), store=BUDGETS)


TENANT_BUDGETS = {"tenant-minute": _budget(200_000, "1m"), "tenant-day": _budget(2_000_000, "1d")}
"""The budgets of one tenant for the routes that generate text. One search re-ranks 4,000 tokens. A token of
re-ranking costs about an eighth of an input token of `generate`, so the budgets do not count re-ranking and
embeddings."""
PLAN = ModelUse(input_p95=1_200, input_mean=800, output_max=12, output_mean=8)
"""A plan is short. It uses the route `generate`, so plans and answers spend the same quota."""

LLM = ModelDependency.of(
    "llm",
    route(
        "generate",
        ModelRoute(
            candidates=_names(GENERATE),
            capabilities=("text", "streaming", "tools"),
            objective=_latency("250ms", "4.3ms"),
            output_limit=OutputLimit(max_tokens=150),
            budgets=tuple(TENANT_BUDGETS),
        ),
        ModelUse(input_p95=3_000, input_mean=1_500, output_max=150, output_mean=100),
        DEPLOYMENTS,
    ),
    route(
        "rewrite",
        ModelRoute(
            candidates=_names(REWRITE),
            capabilities=("text", "streaming"),
            objective=_latency("80ms", "4.3ms"),
            timeout=_waits("400ms", "1s"),
            output_limit=OutputLimit(max_tokens=16),
            budgets=tuple(TENANT_BUDGETS),
        ),
        ModelUse(input_p95=400, input_mean=200, output_max=16, output_mean=12),
        DEPLOYMENTS,
    ),
    # Re-ranking and embeddings answer as a whole, so their first token is the whole answer. The hedge starts a second
    # request at the P95 of their latency.
    route(
        "rerank",
        ModelRoute(
            candidates=_names(RERANK),
            capabilities=("reranking",),
            objective=_latency("80ms"),
            timeout=_waits("250ms", "600ms"),
            hedge=ModelHedge(delay=Duration("80ms")),
        ),
        ModelUse(input_p95=8_000, input_mean=4_000),
        DEPLOYMENTS,
    ),
    route(
        "embed",
        ModelRoute(
            candidates=_names(EMBED),
            capabilities=("embeddings",),
            objective=_latency("50ms"),
            timeout=_waits("200ms", "500ms"),
            hedge=ModelHedge(delay=Duration("50ms")),
        ),
        ModelUse(input_p95=8_000, input_mean=200),
        DEPLOYMENTS,
    ),
    purpose="language and embedding models; one of the two providers suffices",
    providers=(OPENAI, MISTRAL),
    deployments=DEPLOYMENTS,
    availability=PROVIDER,
    budgets=TENANT_BUDGETS,
    quota_store=BUDGETS,
    usage=USAGE,
    # The SDK's own retries are off, as in every client: only the route's fallback and hedge send another
    # request.
    clients=(Client(library="openai-python", retries=0),),
)
SPEECH = ModelDependency.of(
    "speech",
    # The times of both routes count from the end of the input. For `recognize` the user stops speaking. For
    # `synthesize` a sentence is complete.
    route(
        "recognize",
        ModelRoute(
            candidates=_names(RECOGNIZE),
            capabilities=("transcription", "streaming"),
            objective=_latency("250ms"),
            timeout=_waits("700ms", "1450ms"),
        ),
        ModelUse(input_mean=5, seconds_mean=5),
        SPEECH_DEPLOYMENTS,
    ),
    route(
        "synthesize",
        ModelRoute(
            candidates=_names(SYNTHESIZE),
            capabilities=("speech", "streaming"),
            objective=_latency("300ms"),
            timeout=_waits("700ms", "1450ms"),
        ),
        # 100 tokens of an answer are some 400 characters.
        ModelUse(input_mean=400, seconds_mean=5),
        SPEECH_DEPLOYMENTS,
    ),
    purpose="speech recognition and synthesis; one of the two providers suffices",
    providers=(AZURE, GOOGLE),
    deployments=SPEECH_DEPLOYMENTS,
    availability=PROVIDER,
    usage=USAGE,
    clients=(Client(library="openai-python", retries=0),),
)
