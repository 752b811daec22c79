"""The compared clients: the bare OpenAI SDK, the SDK over `ModelTransport`, and litellm's router."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI
from voice_models import ModelRuntime, ModelTransport
from voice_policies import (
    FILE_NAME,
    Address,
    BundleMetadata,
    CircuitBreaker,
    Duration,
    EnforcedBy,
    Health,
    Model,
    ModelDeployment,
    ModelPrice,
    ModelProvider,
    ModelRoute,
    Models,
    OutboundCall,
    OutputLimit,
    PolicyBundle,
    StreamLatency,
    StreamTimeout,
    Timeout,
    TokenBudget,
    Tracing,
)
from voice_runtime import Runtime
from voice_runtime.redis import RedisStore, single
from voice_runtime.shared_store import Script

ROUTE, STORE = "llm.generate", "events.reserve"
PATIENT = StreamTimeout(connect=Duration("5s"), first_token=Duration("5s"), idle=Duration("5s"), total=Duration("30s"))


def bare(port: int) -> AsyncOpenAI:
    """The SDK without `ModelTransport`."""
    return AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)


class TimedStore:
    """A store in Valkey that records the duration of each answered script, in seconds."""

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        self._store = RedisStore(lambda: single(url))

    async def run(self, script: Script, keys: Sequence[str], *arguments: str | bytes | float) -> Any:
        """Run a script as `RedisStore.run` does, and record its duration."""
        begun = time.perf_counter()
        answer = await self._store.run(script, keys, *arguments)
        self.seconds.append(time.perf_counter() - begun)
        return answer


def ours(port: int, directory: Path, store: TimedStore | None = None) -> AsyncOpenAI:
    """The SDK over `ModelTransport`, with cooldowns, a breaker, and two token budgets.

    `store` counts the tokens of the budgets. Without `store` this process counts the tokens and
    enforces its local share of each budget.
    """
    (directory / FILE_NAME).write_text(json.dumps(_bundle(port, directory).to_document()))
    models = ModelRuntime(Runtime.load(directory), stores={STORE: store} if store else None)
    http = httpx.AsyncClient(transport=ModelTransport(models, ROUTE))
    return AsyncOpenAI(api_key="none", base_url="http://route/v1", http_client=http)  # type: ignore[arg-type]  # the SDK accepts httpx and declares httpx2


def router(port: int) -> Any:
    """The router of litellm with two deployments, its cooldowns, and no retries."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise the import downloads a list of prices
    from litellm import Router  # noqa: PLC0415  # its import takes seconds

    params = {"model": "openai/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}
    deployments = [{"model_name": "m", "litellm_params": {**params, "tpm": 10**9}} for _ in range(2)]
    return Router(model_list=deployments, num_retries=0, cooldown_time=5)


def _bundle(port: int, directory: Path) -> PolicyBundle:
    key = directory / "key"
    key.write_text("none")
    budgets = {
        name: TokenBudget(key=name, tokens=10**12, window=Duration("1m"), store=STORE)
        for name in ("tenant", "deployment")
    }
    deployment = ModelDeployment(
        provider="a",
        model="m",
        credential=str(key),
        latency=StreamLatency(first_token=Duration("1s")),
        budgets=("deployment",),
    )
    route = ModelRoute(
        candidates=("one", "two"),
        capabilities=("text",),
        timeout=PATIENT,
        output_limit=OutputLimit(max_tokens=1000),
        budgets=("tenant",),
    )
    price = ModelPrice(input=0.15, output=0.6, as_of=date(2026, 11, 30), source="a bench")
    models = Models(
        providers={"a": ModelProvider(address=Address(host="127.0.0.1", port=port))},
        models={"m": Model(name="m", capabilities=("text", "streaming"), context_window=100_000, price=price)},
        deployments={"one": deployment, "two": deployment},
        routes={ROUTE: route},
        budgets=budgets,
    )
    outbound = _call(ROUTE, "http", route=ROUTE, timeout=Timeout(attempt=PATIENT.total, overall=PATIENT.total))
    store = _call(STORE, "redis", addresses=(Address(host="127.0.0.1", port=6379),))
    return PolicyBundle(
        metadata=BundleMetadata(service="model-adapter", environment="bench", language="python"),
        outbound=(outbound, store),
        health=Health(),
        tracing=Tracing(endpoint="http://collector:4317"),
        models=models,
    ).sealed()


def _call(name: str, protocol: str, **fields: Any) -> OutboundCall:
    callee, _, operation = name.partition(".")
    given: dict[str, Any] = {
        "name": name,
        "callee": callee,
        "operation": operation,
        "protocol": protocol,
        "idempotency": "idempotent",
        "necessity": "hard",
        "timeout": Timeout(attempt=Duration("1s"), overall=Duration("1s")),
        "circuit_breaker": CircuitBreaker(),
        "enforced_by": EnforcedBy(timeout="runtime", circuit_breaker="runtime"),
    }
    return OutboundCall(**(given | fields))
