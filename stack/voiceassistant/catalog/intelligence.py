"""Intelligence: tasks, agents, models, voice and images."""

from __future__ import annotations

from voice_policies import DegradedFeature, Duration, Rate, Ratio

from components.node import Replicas, Service, Sizing
from components.operation import Stage, hard, loop, operation, soft, stage
from stack.voiceassistant.catalog.defaults import (
    MODELS_LOADED,
    following_health,
    per_tenant,
    per_user,
    provider_bulkhead,
)
from stack.voiceassistant.catalog.models import DEFAULT_ROUTE, LLM, PLAN
from stack.voiceassistant.site import APPS

WITH_ATTACHMENT = Ratio("10%")
"""Share of questions with a picture or document."""
_ANSWER: tuple[Stage, ...] = (
    stage(
        soft("redis.access", "no cache of tasks"), soft("model-router.choose", f"the default route `{DEFAULT_ROUTE}`")
    ),
    stage(hard("agent-engine.run", "with_key"), soft("multimodal-engine.describe", "text only", share=WITH_ATTACHMENT)),
)

ORCHESTRATOR = Service(
    name="ai-orchestrator",
    namespace=APPS,
    purpose="routes AI tasks, joins results",
    language="go",
    tier="core",
    grpc_port=9003,
    http_port=8080,
    sizing=Sizing.of(cpu=("1", "2"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=3, max=20),
    capacity=Rate("40/s"),
    without_features="its optional parts are soft calls with fallbacks: the default route, or text only",
    operations=(
        operation("answer", *_ANSWER, p95="2200ms", deadline="14500ms", transport="streamed"),
        operation("task", *_ANSWER, p95="2200ms", deadline="14500ms"),
    ),
)

MODEL_ROUTER = Service(
    name="model-router",
    namespace=APPS,
    purpose="chooses a model by cost, latency, quota",
    language="go",
    tier="standard",
    grpc_port=9004,
    http_port=8080,
    sizing=Sizing.of(cpu=("250m", "500m"), memory=("256Mi", "512Mi")),
    replicas=Replicas(min=2, max=2),
    capacity=Rate("300/s"),
    connection_pool=5,
    operations=(
        operation(
            "choose",
            stage(
                soft("redis.access", "the last known quota"),
                soft("postgresql.read", "the last known prices"),
            ),
            p95="30ms",
            deadline="150ms",
            default_route=DEFAULT_ROUTE,
        ),
    ),
)

AGENT = Service(
    name="agent-engine",
    namespace=APPS,
    purpose="ReAct reasoning, tools, multi-step tasks",
    language="python",
    tier="core",
    grpc_port=9000,
    http_port=8003,
    sizing=Sizing.of(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    replicas=Replicas(min=3, max=10),
    capacity=Rate("10/s"),
    connection_pool=5,
    features=(
        DegradedFeature(name="citations", off_at="partial", fallback="no citations"),
        DegradedFeature(name="tools", off_at="full", fallback="tool refused"),
    ),
    operations=(
        operation(
            "run",
            # A plan is short. If the question needs no tool, this call streams the whole answer. The call's timeout is
            # 1.5 s, half of the 3 s that a model call may take. 1.5 s are enough for two attempts: 2 × 700 ms until the
            # first token, and 50 ms of backoff.
            stage(
                hard(
                    "model-adapter.generate",
                    "with_key",
                    purpose="plan",
                    latency=Duration("300ms"),
                    timeout=Duration("1500ms"),
                    model_use=PLAN,
                ),
                soft("redis.access", "no long-term memory"),
            ),
            loop(
                soft("rag-engine.context", "no citations"),
                soft("retrieval-service.search", "tool refused"),
                soft("external-tools.invoke", "tool refused", "never"),
                at_most=3,
                typically=1,
            ),
            stage(
                hard("model-adapter.generate", "with_key", purpose="answer"),
                soft("postgresql.write", "steps kept in memory", "with_key"),
            ),
            p95="2s",
            deadline="14s",
            transport="streamed",
            # A question costs several model calls, so one tenant's questions must not take the slots of other tenants.
            rate_limits=per_tenant("10/s", 20),
        ),
    ),
)

MODEL_ADAPTER = Service(
    name="model-adapter",
    features=(
        DegradedFeature(name="re-ranking", off_at="partial", fallback="the caller keeps its order"),
        DegradedFeature(name="query-rewriting", off_at="full", fallback="the caller keeps its query"),
    ),
    namespace=APPS,
    purpose="the only caller of LLM and embedding providers",
    language="python",
    tier="core",
    grpc_port=9000,
    http_port=8005,
    sizing=Sizing.of(cpu=("500m", "1"), memory=("512Mi", "1Gi")),
    replicas=Replicas(min=3, max=12),
    capacity=Rate("150/s"),
    operations=tuple(
        operation(
            name,
            # The providers accept no idempotency key, so a provider may bill every attempt of a call.
            stage(
                hard(f"llm.{name}", "idempotent", bulkhead=provider_bulkhead(concurrent)),
                soft("events.reserve", "each replica enforces its share of the budgets"),
            ),
            p95=latency,
            deadline=str(LLM.operation(name).deadline),
            appends=("model.attempted",),
            transport="streamed" if name == "generate" else "unary",
            rate_limits=following_health(rate),
        )
        # A replica serves 150 requests a second of all kinds together. If all requests are of one kind, the number of
        # simultaneous requests at the provider is 150/s times the P95 of this kind. Only `generate` admits fewer: 64
        # instead of 135.
        for name, latency, concurrent, rate in (
            ("generate", "900ms", 64, "64/s"),
            ("rewrite", "150ms", 32, "150/s"),
            ("rerank", "80ms", 16, "150/s"),
            ("embed", "50ms", 16, "150/s"),
        )
    ),
)

VOICE = Service(
    name="voice-engine",
    namespace=APPS,
    purpose="ASR, TTS and VAD; only the gateway calls it",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8002,
    sizing=Sizing.of(cpu=("1", "2"), memory=("1Gi", "2Gi")),
    replicas=Replicas(min=2, max=8),
    capacity=Rate("10/s"),
    startup=MODELS_LOADED,
    operations=(
        operation(
            "dialogue",
            stage(hard("speech.recognize", "idempotent", bulkhead=provider_bulkhead(32))),
            stage(hard("ai-orchestrator.answer", "with_key")),
            # Speech starts with the first text, so it adds nothing to the latency of the whole answer.
            stage(
                hard("speech.synthesize", "idempotent", bulkhead=provider_bulkhead(32)),
                overlaps=True,
            ),
            p95="2500ms",
            deadline="18s",
            transport="websocket",
            appends=("model.attempted",),
            # A spoken question and its answer take longer than 2 s, so a user needs fewer than 30 a minute. The user is
            # the subject of the verified token.
            rate_limits=per_user(30, "1m"),
        ),
    ),
)

MULTIMODAL = Service(
    name="multimodal-engine",
    namespace=APPS,
    purpose="images, OCR, video",
    language="python",
    tier="standard",
    grpc_port=9000,
    http_port=8007,
    sizing=Sizing.of(cpu=("1", "2"), memory=("2Gi", "4Gi")),
    replicas=Replicas(min=2, max=2),
    capacity=Rate("5/s"),
    startup=MODELS_LOADED,
    operations=(
        operation("describe", stage(hard("model-adapter.generate", "with_key")), p95="1500ms", deadline="3500ms"),
    ),
)

SERVICES: tuple[Service, ...] = (ORCHESTRATOR, MODEL_ROUTER, AGENT, MODEL_ADAPTER, VOICE, MULTIMODAL)
